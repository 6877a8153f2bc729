"""The capsule network with routing by variational Bayes of Ribeiro and others 2020."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import PositiveInt, checked
from capsjax.capsules import Capsules, accumulation_dtype
from capsjax.layers import CapsuleNorm, ClassCaps, ConvPrimaryCaps, NormalizedConv, RoutedCapsules
from capsjax.models._stack import PoseDim, conv_caps_stack
from capsjax.models.output import NOTHING_DRAWN, CapsuleNetwork, Keys
from capsjax.routing import AnyRouting, Competition, VariationalBayes, as_routing


class VBCapsNet(CapsuleNetwork):
    """A convolution, and layers of matrix capsules by variational Bayes, all of them normalised.

    Ribeiro, Leontidis and Kollias 2020, "Capsule Routing via Variational Bayes", AAAI,
    arXiv:1905.11455; the network is the one of the authors' code
    (github.com/fabio-deep/Variational-Capsule-Routing): `A` filters, `B` types of primary capsules,
    two convolutional layers of `C` and `D` types, and the classes, as in the network of Hinton,
    Sabour and Frosst 2018. Batch normalisation follows every layer: of the features; of the poses
    of each type; and of activations before their sigmoid. That of what is routed has no parameters.

    With the code's {A, B, C, D} = {64, 8, 16, 16}, on patches of 32x32x2 of smallNORB and 5
    classes, it has 68,640 parameters. The code has 68,714: betas of the routing, which the
    normalisation takes out again, are left out here. The paper's tables have about 73,700 more for
    the same numbers of capsules, whatever these numbers are: as many as two convolutions of 3x3
    from 64 features to 64 have. The code does not have them.

    Its loss, in the code, is cross entropy with the activations of the class capsules, from 0 to 1,
    for logits (`--loss cross_entropy` of the training program).

    Two things are the paper's where the code differs. Positions are added to votes from 0 to 1, the
    middle of each cell; in the code the end of each, in tenths of that. And routing starts from
    responsibilities that are equal over all parents of a capsule; in the code, over those at each
    position. Filters of primary activations start 1.7 times smaller than the code's with the
    published sizes, which the normalisation after them takes out.

    Args:
        image_shape, num_classes, batch_axis, dtype, param_dtype, rngs: see `create_model`.
        conv_features, conv_kernel, conv_stride: see `MatrixCapsNet`, as the next ones.
        primary_types, pose_dim, competition: see there.
        caps_types, caps_kernels, caps_strides: see there.
        routing: see `create_model`. Of variational Bayes that is still
            to be built, activations are normalised before their sigmoid; of another routing, they
            stay as they are.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.models.VBCapsNet(
        ...     image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0),
        ...     conv_features=8, conv_kernel=3, primary_types=2,
        ...     caps_types=(4,), caps_kernels=(2,), caps_strides=(1,)
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
        conv_features: PositiveInt = 64,
        conv_kernel: PositiveInt = 5,
        conv_stride: PositiveInt = 2,
        primary_types: PositiveInt = 8,
        caps_types: Sequence[int] = (16, 16),
        caps_kernels: Sequence[int] = (3, 3),
        caps_strides: Sequence[int] = (2, 1),
        pose_dim: PoseDim = 16,
        competition: Competition = "all",
        routing: AnyRouting = "variational-bayes",
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        normalized = {"batch_axis": batch_axis, **options}
        routing = as_routing(routing)
        is_normalized = isinstance(routing, VariationalBayes)
        if isinstance(routing, VariationalBayes):
            routing = dataclasses.replace(routing, activation="logit")

        def norm(types: int, **others: Any) -> CapsuleNorm:
            options = {"affine": False, "logits": is_normalized, **normalized, **others}
            return CapsuleNorm(types, pose_dim, over="type", **options)

        self.features = NormalizedConv(
            image_shape, conv_features, kernel_size=conv_kernel, stride=conv_stride, **normalized
        )
        self.primary_caps = ConvPrimaryCaps(
            self.features.output_shape,
            primary_types,
            pose_dim,
            activation="logit",
            use_bias=False,
            **options,
        )
        self.primary_norm = norm(primary_types, affine=True, logits=True)
        self.conv_caps, grid = conv_caps_stack(
            self.primary_caps.output_shape,
            (caps_types, caps_kernels, caps_strides),
            _glorot,
            routing=routing,
            competition=competition,
            transform="matrix",
            **options,
        )
        self.conv_norms = nnx.List(norm(layer.output_shape.types) for layer in self.conv_caps)
        self.class_caps = ClassCaps(
            grid,
            num_classes,
            pose_dim,
            routing=routing,
            kernel_init=_glorot(grid.types, num_classes),
            **options,
        )
        self.class_norm = norm(num_classes, dtype=accumulation_dtype(options["dtype"]))

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        capsules = self.primary_norm(self.primary_caps(self.features(images)))
        for layer, norm in zip(self.conv_caps, self.conv_norms, strict=True):
            capsules = norm(layer(capsules, **next(keys)).capsules)
        routed, coupling = self.class_caps(capsules, **next(keys))
        return RoutedCapsules(self.class_norm(routed), coupling)

    def logits(self, capsules: Capsules) -> jax.Array:
        return capsules.activation


def _glorot(in_types: int, out_types: int, *_: int) -> nnx.Initializer:
    """Glorot and Bengio 2010, of matrices of capsules of so many types below and above.

    A window has as many elements for what is below as for what is above.
    """
    # Of the matrices [I, J, side, side], a fan of I is that of what is below.
    scale = 2 * in_types / (in_types + out_types)
    return nnx.initializers.variance_scaling(scale, "fan_in", "uniform", in_axis=0, out_axis=1)
