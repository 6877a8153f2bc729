"""The network of Tsai, Srivastava, Goh and Salakhutdinov 2020: all capsule layers route at once."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Capsules, accumulation_dtype, in_a_list
from capsjax.layers import ConvCaps, ConvPrimaryCaps, DenseCaps, ResidualFeatures
from capsjax.models._sizes import square, together
from capsjax.models.output import CapsNetOutput
from capsjax.routing import InvertedAttention, Routing, UnsizedRouting, as_routing
from capsjax.routing._base import name_of
from capsjax.routing.stepwise import is_stepwise


class AttentionCapsNet(nnx.Module):
    """A residual network, and capsules whose poses are matrices, above which route by attention.

    Tsai, Srivastava, Goh and Salakhutdinov 2020, "Capsules with inverted dot-product attention
    routing", arXiv:2002.04764, with the sizes of the authors' code for CIFAR-10: 7 residual blocks,
    primary capsules that are layer-normalised, two convolutional capsule layers, and class capsules
    that see all capsules below with a matrix each. On 32x32x3 images and 10 classes it has
    1,828,817 parameters, the published number. Its loss is cross entropy (`--loss cross_entropy` of
    the training program).

    Routing is concurrent: first one iteration in one layer after the other, then one in all layers
    at once, from the poses that the iteration before has left in the layer below, and so on.
    That needs a routing that takes one iteration at a time, see `StepwiseRouting`; with
    `sequential`, where each layer is done before the next begins, any will do.

    Args:
        image_shape: `(height, width, channels)` of one image.
        num_classes: number of class capsules.
        backbone_features: filters of each stage of the residual network.
        backbone_blocks: blocks of each stage.
        backbone_strides: stride of the first block of each stage.
        primary_types: types of primary capsules.
        caps_types: types of capsules of each convolutional capsule layer.
        caps_kernels: the side of each one's windows.
        caps_strides: the stride between them.
        pose_dim: numbers of a pose, a square: 16 for 4x4.
        routing: how capsules come about; a name, or an object. Inverted attention is built without
            `presence` below the class capsules, and with it for them.
        sequential: whether a layer routes until it is done before the next one begins.
        batch_axis: name of the mapped axis over which a batch is spread, see `BatchNorm`.
        dtype: dtype of convolutions and votes; what routing makes of them, and what the model
            returns, are float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the image is too small for the kernels, a size is not a positive integer, the
            routing does not take one iteration at a time, or another argument has a wrong value.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: int,
        backbone_features: Sequence[int] = (64, 128),
        backbone_blocks: Sequence[int] = (3, 4),
        backbone_strides: Sequence[int] = (1, 2),
        primary_types: int = 32,
        caps_types: Sequence[int] = (32, 32),
        caps_kernels: Sequence[int] = (3, 3),
        caps_strides: Sequence[int] = (2, 1),
        pose_dim: int = 16,
        routing: str | Routing | UnsizedRouting = "inverted-attention",
        sequential: bool = False,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.num_classes = _checks.positive_integer("num_classes", num_classes)
        self.sequential = _checks.boolean("sequential", sequential)
        _checks.positive_integer("primary_types", primary_types)
        pose_dim = square("pose_dim", pose_dim)
        stages = together(
            "stage of the backbone",
            backbone_features=backbone_features,
            backbone_blocks=backbone_blocks,
            backbone_strides=backbone_strides,
        )
        layers = together(
            "capsule layer",
            caps_types=caps_types,
            caps_kernels=caps_kernels,
            caps_strides=caps_strides,
        )
        if not stages:
            raise ValueError("backbone_features must have a value for each stage, but has none")
        options: dict[str, Any] = {
            "dtype": _checks.floating_dtype("dtype", dtype),
            "param_dtype": _checks.floating_dtype("param_dtype", param_dtype),
            "rngs": rngs,
        }
        features, blocks, strides = zip(*stages, strict=True)
        self.backbone = ResidualFeatures(
            _checks.image_shape(image_shape),
            features=features,
            blocks=blocks,
            strides=strides,
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
            **{**options, "dtype": accumulation_dtype(dtype)},
        )
        below, of_classes = _routings(as_routing(routing))
        side = math.isqrt(pose_dim)
        conv_caps, grid = [], self.primary_caps.output_shape
        for types, kernel_size, stride in layers:
            terms = kernel_size**2 * grid.types * side
            layer = ConvCaps(
                grid,
                types,
                pose_dim,
                kernel_size=kernel_size,
                stride=stride,
                routing=below,
                competition="patch",
                transform="matrix",
                kernel_init=nnx.initializers.normal(math.sqrt(types / terms)),
                **options,
            )
            conv_caps.append(layer)
            grid = layer.output_shape
        self.conv_caps = nnx.List(conv_caps)
        in_capsules = grid.height * grid.width * grid.types
        self.class_caps = DenseCaps(
            in_capsules,
            pose_dim,
            num_classes,
            pose_dim,
            routing=of_classes,
            transform="matrix",
            kernel_init=nnx.initializers.normal(math.sqrt(num_classes / (in_capsules * side))),
            **options,
        )
        if not sequential:
            for made in (*(layer.routing for layer in conv_caps), self.class_caps.routing):
                _require_stepwise(made)

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> CapsNetOutput:
        """Runs the network on a batch of images.

        Args:
            images: `[batch, height, width, channels]`.
            labels: not used; for other networks a decoder's.

        Returns:
            Class capsules, their activations as lengths, the coupling of the class layer and, if
            the routing has such, the logits of the classes; in float32 at least.
        """
        del labels
        pose, ones = self.primary_caps(self.backbone(images))
        pose = self.primary_norm(pose.astype(accumulation_dtype(pose.dtype)))
        primary = Capsules(pose, ones)
        route = self._one_after_the_other if self.sequential else self._all_at_once
        capsules, coupling = route(primary)
        to_logits = getattr(self.class_caps.routing, "logits", None)
        logits = None if to_logits is None else jax.vmap(to_logits)(capsules.pose)
        return CapsNetOutput(capsules, capsules.activation, coupling, None, logits)

    def _one_after_the_other(self, primary: Capsules) -> tuple[Capsules, jax.Array]:
        capsules = primary
        for layer in self.conv_caps:
            capsules, _ = layer(capsules)
        return self.class_caps(in_a_list(capsules))

    def _all_at_once(self, primary: Capsules) -> tuple[Capsules, jax.Array]:
        """Procedure 2: a first iteration upwards, then iterations of all layers in parallel."""
        layers: list[Any] = [*self.conv_caps, self.class_caps]
        capsules, steps = primary, []
        for layer in layers:
            steps.append(layer.step(in_a_list(capsules) if layer is layers[-1] else capsules))
            capsules = steps[-1].capsules
        for _ in range(1, layers[-1].routing.iterations):
            below = [primary, *(step.capsules for step in steps[:-1])]
            below[-1] = in_a_list(below[-1])
            steps = [
                layer.step(capsules, step.state)
                for layer, capsules, step in zip(layers, below, steps, strict=True)
            ]
        return steps[-1].capsules, steps[-1].coupling


def _routings(
    routing: Routing | UnsizedRouting,
) -> tuple[Routing | UnsizedRouting, Routing | UnsizedRouting]:
    """That of the layers below the classes, and that of the classes."""
    if not isinstance(routing, InvertedAttention):
        return routing, routing
    return (
        dataclasses.replace(routing, presence=False),
        dataclasses.replace(routing, presence=True),
    )


def _require_stepwise(routing: Any) -> None:
    if not is_stepwise(routing):
        raise ValueError(
            f"layers can only route at once with a routing that takes one iteration at a time, "
            f"such as inverted-attention, not with {name_of(routing)}: choose sequential=True"
        )
