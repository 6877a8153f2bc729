"""The matrix capsules of Hinton, Sabour and Frosst 2018."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import PositiveInt, checked
from capsjax.layers import ClassCaps, ConvFeatures, ConvPrimaryCaps, RoutedCapsules
from capsjax.layers.convolutional import Coordinates
from capsjax.models._stack import PoseDim, conv_caps_stack
from capsjax.models.output import NOTHING_DRAWN, CapsuleNetwork, Keys
from capsjax.routing import EM, AnyRouting, Competition, Routing, UnsizedRouting, as_routing


class MatrixCapsNet(CapsuleNetwork):
    """A convolution, and layers of capsules whose poses are matrices, up to the classes.

    Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing" (ICLR 2018,
    openreview.net/forum?id=HJWLfGWRb), section 4 and figure 1: `A` filters, `B` types of primary
    capsules, two convolutional layers of `C` and `D` types, and the classes. What the paper leaves
    open is that of the authors' code, `capsule_em` of google-research: no padding, primary capsules
    without biases, the initial values of matrices, and EM routing's constants (see `EM`). What
    public re-implementations have otherwise are arguments. Its loss is the spread loss, with a
    margin that grows from 0.2 to 0.9 (`--loss spread --spread-steps N` of the training program).

    On patches of 32x32x2 of smallNORB and 5 classes it has 316,650 parameters, and 68,618 with the
    smaller sizes of section 5, `conv_features=64`, `primary_types=8` and `caps_types=(16, 16)`. The
    paper has 310K and 68K; that these are the same numbers, cut off after two digits, is a guess.

    Two things are the paper's where the code differs. Positions are added to the right-hand column
    of a vote and run from 0 to 1; in the code, they are distances from the centre in hundreds of
    pixels, and are added to the first two numbers of a vote. And routing starts from assignments
    that are equal over all parents of a capsule; in the code, over those at each position.

    Nor does it start quite as the code does. Filters have a deviation of 0.5 for primary poses and
    of 3 for their activations, which is what the code draws; but it then takes them for capsules in
    another order, by which the wide ones are those of the last types, poses and all. And its first
    convolution starts with a deviation of 0.05 and biases of 0.1.

    Args:
        image_shape, num_classes, routing, batch_axis, dtype, param_dtype, rngs: see `create_model`.
        conv_features, conv_kernel, conv_stride, conv_padding: filters of the convolution (`A`), the
            side of its kernel, its stride, and the zeros on each side of the image.
        conv_norm: whether a batch is normalised between the convolution and its rectifier.
        norm_momentum, norm_epsilon: of `BatchNorm`.
        primary_types: types of primary capsules, `B`.
        primary_bias: whether primary capsules have biases.
        primary_offset: added to what the sigmoid of their activations is taken of.
        caps_types, caps_kernels, caps_strides: of each convolutional capsule layer, its types (`C`
            and `D`), the side of its windows, and the stride between them.
        pose_dim: numbers of a pose, a square: 16 for 4x4.
        competition: whether a capsule's assignments are shared out over its parents at `"all"`
            positions, or in each `"patch"` apart, as most re-implementations have it.
        class_routing: that of the class capsules. If not given, it is `routing`, and if that is EM
            routing in the formulation of the authors' code, with what the code has for its class
            layer: a quarter of `inverse_temperature`, `initial_beta_u=2` and `initial_beta_a=1`.
        class_coordinates: which position is added to votes for classes, see `ClassCaps`.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.models.MatrixCapsNet(
        ...     image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0),
        ...     conv_features=8, conv_kernel=3, conv_stride=1, primary_types=2,
        ...     caps_types=(4,), caps_kernels=(3,), caps_strides=(2,)
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
        conv_features: PositiveInt = 32,
        conv_kernel: PositiveInt = 5,
        conv_stride: PositiveInt = 2,
        conv_padding: int = 0,
        conv_norm: bool = False,
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        primary_types: PositiveInt = 32,
        primary_bias: bool = False,
        primary_offset: float = -1.0,
        caps_types: Sequence[int] = (32, 32),
        caps_kernels: Sequence[int] = (3, 3),
        caps_strides: Sequence[int] = (2, 1),
        pose_dim: PoseDim = 16,
        competition: Competition = "all",
        routing: AnyRouting = "em",
        class_routing: AnyRouting | None = None,
        class_coordinates: Coordinates = "centre",
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        routing = as_routing(routing)
        self.features = ConvFeatures(
            image_shape,
            conv_features,
            kernel_size=conv_kernel,
            stride=conv_stride,
            padding=conv_padding,
            normalize=conv_norm,
            norm_momentum=norm_momentum,
            norm_epsilon=norm_epsilon,
            batch_axis=batch_axis,
            **options,
        )
        self.primary_caps = ConvPrimaryCaps(
            self.features.output_shape,
            primary_types,
            pose_dim,
            activation_offset=primary_offset,
            use_bias=primary_bias,
            kernel_init=_primary_init(primary_types),
            **options,
        )
        self.conv_caps, grid = conv_caps_stack(
            self.primary_caps.output_shape,
            (caps_types, caps_kernels, caps_strides),
            lambda *_: nnx.initializers.truncated_normal(0.3),
            routing=routing,
            competition=competition,
            transform="matrix",
            **options,
        )
        self.class_caps = ClassCaps(
            grid,
            num_classes,
            pose_dim,
            routing=_of_classes(routing) if class_routing is None else as_routing(class_routing),
            coordinates_of=class_coordinates,
            kernel_init=nnx.initializers.truncated_normal(0.01),
            **options,
        )

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        capsules = self.primary_caps(self.features(images))
        for layer in self.conv_caps:
            capsules, _ = layer(capsules, **next(keys))
        return self.class_caps(capsules, **next(keys))


def _of_classes(routing: Routing | UnsizedRouting) -> Routing | UnsizedRouting:
    """The routing of the class layer, given that of the layers below."""
    if not isinstance(routing, EM) or routing.formulation != "code":
        return routing
    return dataclasses.replace(
        routing,
        inverse_temperature=routing.inverse_temperature / 4,
        initial_beta_u=2.0,
        initial_beta_a=1.0,
    )


def _primary_init(types: int) -> nnx.Initializer:
    """Filters of `types` primary capsules, those of their poses before those of activations."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        parts = zip(jax.random.split(key), (shape[-1] - types, types), (0.5, 3.0), strict=True)
        filters = [
            nnx.initializers.truncated_normal(deviation)(key, (*shape[:-1], count), dtype)
            for key, count, deviation in parts
        ]
        return jnp.concatenate(filters, axis=-1)

    return init
