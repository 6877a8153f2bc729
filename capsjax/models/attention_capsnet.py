"""The network of Tsai, Srivastava, Goh and Salakhutdinov 2020: all capsule layers route at once."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import PositiveInt, PositiveInts, checked
from capsjax.capsules import Capsules, accumulation_dtype, in_a_list
from capsjax.layers import ConvPrimaryCaps, DenseCaps, ResidualFeatures, RoutedCapsules
from capsjax.models._stack import PoseDim, conv_caps_stack
from capsjax.models.output import NOTHING_DRAWN, CapsuleNetwork, Keys
from capsjax.routing import AnyRouting, InvertedAttention, IterativeRouting, as_routing
from capsjax.routing._base import name_of


class AttentionCapsNet(CapsuleNetwork):
    """A residual network, and capsules whose poses are matrices, above which route by attention.

    Tsai, Srivastava, Goh and Salakhutdinov 2020, "Capsules with inverted dot-product attention
    routing", arXiv:2002.04764, with the sizes of the authors' code for CIFAR-10: 7 residual blocks,
    primary capsules that are layer-normalised, two convolutional capsule layers, and class capsules
    that see all capsules below with a matrix each. On 32x32x3 images and 10 classes it has
    1,828,817 parameters, the published number. Its loss is cross entropy (`--loss cross_entropy` of
    the training program).

    Routing is concurrent: first one iteration in one layer after the other, then one in all layers
    at once, from the poses that the iteration before has left in the layer below, and so on.
    That needs a routing that takes one iteration at a time, see `IterativeRouting`; with
    `sequential`, where each layer is done before the next begins, any will do.

    Args:
        image_shape, num_classes, batch_axis, dtype, param_dtype, rngs: see `create_model`.
        backbone_features, backbone_blocks, backbone_strides: of each stage of the residual network,
            its filters, its blocks, and the stride of the first of these.
        primary_types, caps_types, caps_kernels, caps_strides, pose_dim: see `MatrixCapsNet`.
        routing: see `create_model`. Inverted attention is built without
            `presence` below the class capsules, and with it for them.
        sequential: whether a layer routes until it is done before the next one begins.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.models.AttentionCapsNet(
        ...     image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0),
        ...     backbone_features=(8,), backbone_blocks=(1,), backbone_strides=(1,),
        ...     primary_types=4, caps_types=(4,), caps_kernels=(3,), caps_strides=(2,)
        ... )
        >>> model(jnp.ones((2, 8, 8, 1))).lengths.shape
        (2, 10)
    """

    @checked
    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: PositiveInt,
        backbone_features: PositiveInts = (64, 128),
        backbone_blocks: PositiveInts = (3, 4),
        backbone_strides: PositiveInts = (1, 2),
        primary_types: PositiveInt = 32,
        caps_types: Sequence[int] = (32, 32),
        caps_kernels: Sequence[int] = (3, 3),
        caps_strides: Sequence[int] = (2, 1),
        pose_dim: PoseDim = 16,
        routing: AnyRouting = "inverted-attention",
        sequential: bool = False,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.sequential = sequential
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        self.backbone = ResidualFeatures(
            image_shape,
            features=backbone_features,
            blocks=backbone_blocks,
            strides=backbone_strides,
            batch_axis=batch_axis,
            **options,
        )
        self.primary_caps = ConvPrimaryCaps(
            self.backbone.output_shape,
            primary_types,
            pose_dim,
            activation="one",
            use_bias=False,
            kernel_init=nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            **options,
        )
        self.primary_norm = nnx.LayerNorm(
            pose_dim,
            epsilon=1e-5,
            use_fast_variance=False,
            **options | {"dtype": accumulation_dtype(dtype)},
        )
        below = of_classes = as_routing(routing)
        if isinstance(below, InvertedAttention):
            below, of_classes = (
                dataclasses.replace(below, presence=presence) for presence in (False, True)
            )
        side = math.isqrt(pose_dim)

        def deviation(terms: int, types: int) -> nnx.Initializer:
            return nnx.initializers.normal(math.sqrt(types / (terms * side)))

        self.conv_caps, grid = conv_caps_stack(
            self.primary_caps.output_shape,
            (caps_types, caps_kernels, caps_strides),
            lambda in_types, types, kernel_size: deviation(kernel_size**2 * in_types, types),
            routing=below,
            competition="patch",
            transform="matrix",
            **options,
        )
        in_capsules = math.prod(grid[:3])
        self.class_caps = DenseCaps(
            in_capsules,
            pose_dim,
            num_classes,
            pose_dim,
            routing=of_classes,
            transform="matrix",
            kernel_init=deviation(in_capsules, num_classes),
            **options,
        )
        for made in (*(layer.routing for layer in self.conv_caps), self.class_caps.routing):
            if not sequential and not isinstance(made, IterativeRouting):
                raise ValueError(
                    "layers can only route at once with a routing that takes one iteration at a "
                    f"time, an IterativeRouting, not with {name_of(made)}: choose sequential=True"
                )

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        pose, ones = self.primary_caps(self.backbone(images))
        pose = self.primary_norm(pose.astype(accumulation_dtype(pose.dtype)))
        capsules = primary = Capsules(pose, ones)
        if self.sequential:
            for layer in self.conv_caps:
                capsules, _ = layer(capsules, **next(keys))
            return self.class_caps(in_a_list(capsules), **next(keys))

        # Procedure 2: a first iteration upwards, then iterations of all layers in parallel.
        layers: list[Any] = [*self.conv_caps, self.class_caps]
        steps: list[Any] = []
        of_layers = [next(keys) for _ in layers]
        for layer, drawn in zip(layers, of_layers, strict=True):
            seen = in_a_list(capsules) if layer is layers[-1] else capsules
            steps.append(layer.iterate(seen, **drawn))
            capsules = steps[-1].capsules
        for _ in range(1, layers[-1].routing.iterations):
            *below, last = primary, *(step.capsules for step in steps[:-1])
            inputs = zip(layers, (*below, in_a_list(last)), steps, of_layers, strict=True)
            steps = [layer.iterate(x, step.state, **drawn) for layer, x, step, drawn in inputs]
        return RoutedCapsules(steps[-1].capsules, steps[-1].coupling)

    def logits(self, capsules: Capsules) -> jax.Array | None:
        of_routing = getattr(self.class_caps.routing, "logits", None)
        return None if of_routing is None else jax.vmap(of_routing)(capsules.pose)
