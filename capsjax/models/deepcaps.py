"""DeepCaps (Rajasegaran et al. 2019)."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax._checks import ImageShape, PositiveInt, PositiveInts, checked
from capsjax.capsules import Capsules, norm, squash
from capsjax.layers import (
    BatchNorm,
    Conv3dCaps,
    ConvDecoder,
    ConvPrimaryCaps,
    DenseCaps,
    RoutedCapsules,
)
from capsjax.layers.features import WindowConv
from capsjax.models.output import NOTHING_DRAWN, CapsuleNetwork, Keys
from capsjax.ops.patches import Windows
from capsjax.routing import AnyRouting

# Squash leaves of a short pose the square of its length, so that after some layers nothing is left.
# With these values the sums that are squashed are long enough for poses to keep a length of 0.9, or
# of 0.8 in the corners of a grid, where less than half of a filter sees anything. With Glorot's,
# which the authors' code has, they fade from layer to layer.
_of_length = nnx.initializers.variance_scaling(16.0, "fan_in", "truncated_normal")


class Cell(nnx.Module):
    """Four layers of capsules: one that halves the grid, two above it, and a shortcut past them.

    With a routing, the shortcut is `Conv3dCaps`; without, it is not routed.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        types: int,
        dim: int,
        *,
        routing: AnyRouting | None,
        **options: Any,
    ) -> None:
        convolve: Callable[..., ConvPrimaryCaps] = functools.partial(
            ConvPrimaryCaps,
            types=types,
            dim=dim,
            kernel_size=3,
            padding="SAME",
            activation="length",
            squash=squash,
            use_bias=False,
            kernel_init=_of_length,
            **options,
        )
        self.enter = convolve(input_shape, stride=2)
        self.output_shape = self.enter.output_shape
        inside = (*self.output_shape[:2], types * dim)
        self.middle, self.leave = convolve(inside), convolve(inside)
        self.is_routed = routing is not None
        self.shortcut: Any = (
            convolve(inside)
            if routing is None
            else Conv3dCaps(
                self.output_shape,
                types,
                dim,
                kernel_size=3,
                padding="SAME",
                routing=routing,
                **options,
            )
        )

    def __call__(self, maps: jax.Array, keys: Keys = NOTHING_DRAWN) -> jax.Array:
        """Maps `[batch, height, width, channels]` -> poses of `output_shape`."""
        first = self.enter(maps)
        inside = _as_maps(first.pose)
        last = self.leave(_as_maps(self.middle(inside).pose))
        if self.is_routed:
            past = self.shortcut(first, **next(keys)).capsules
        else:
            past = self.shortcut(inside)
        return last.pose + past.pose.astype(last.pose.dtype)


def _as_maps(pose: jax.Array) -> jax.Array:
    """Poses `[batch, height, width, types, dim]` side by side, as channels."""
    return lax.collapse(pose, 3)


class DeepCaps(CapsuleNetwork):
    """Cells of convolutional capsules with a shortcut each, the last of which is routed.

    Rajasegaran, Jayasundara, Jayasekara, Jayasekara, Seneviratne and Rodrigo 2019, "DeepCaps: going
    deeper with capsule networks", arXiv:1904.09546. A convolution; cells, in which one layer of
    capsules halves the grid, two more follow, and what a fourth makes of the first is added; in the
    last cell that fourth layer is `Conv3dCaps`. The capsules of the last two cells, those of the
    last first, vote for the classes. The other layers are not routed: they are convolutions, the
    sums of which are squashed. The decoder is `ConvDecoder`.

    The defaults are those of the authors' code for images of 28x28. On 28x28x1 images and 10
    classes it has 8,499,761 parameters, 8,441,344 of them outside the decoder. For CIFAR-10 and
    SVHN, images are enlarged to 64x64, and `decoder_features=(64, 32, 16, 8)` and
    `decoder_strides=(1, 2, 2, 2)`: 13,426,419 parameters, 13,358,848 of them outside the decoder.
    The 7.22 million of the paper are not those of a network in the code; it does not say of which
    sizes they are. The code has biases in the two routed layers (576 parameters more), which
    are left out here, and takes for the length of a vector in `Conv3dCaps` that over all positions
    of a type, where here it is each capsule's own.

    More of the code is not as here. Before it convolves in the routed cell, it reshapes the maps
    without having moved their axes, so that positions, types and elements of poses are mixed; here
    it is the convolution of the paper. Its other kernels start from Glorot's values with the axes
    of capsules in the fans, many times smaller than here. What it reports is the best checkpoint by
    test images. In the routed cell the shares of an input capsule sum to one over all types and
    positions of the outputs together, in the code as here.

    It is trained with the margin loss (in the code followed by a second training with margins of
    0.95 and 0.05 and a weight of 0.8 for absent classes) and 0.4 times the mean squared error of
    the reconstruction, which is 0.0005 times its sum for 28x28x1 images.

    Args:
        image_shape, num_classes, routing, batch_axis, dtype, param_dtype, rngs: see `create_model`.
        conv_features: filters of the convolution.
        types: types of capsules in every cell.
        dims: dimension of the poses in each cell; at least two cells, the last two with the same.
        class_dim: dimension of the class capsules' poses.
        grid_routing: that of `Conv3dCaps`, where `routing` is that of the class capsules.
        decoder_channels: of the small image that a reconstruction begins as.
        decoder_features, decoder_strides: filters of the decoder's convolutions but the last, None
            for no decoder; and how many times as large they make the image.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.models.DeepCaps(
        ...     image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0),
        ...     conv_features=8, types=4, dims=(4, 4), class_dim=8,
        ...     decoder_channels=4, decoder_features=(8, 4), decoder_strides=(2, 2)
        ... )
        >>> model(jnp.ones((2, 8, 8, 1))).lengths.shape
        (2, 10)
    """

    decoder_option = "decoder_features"

    @checked
    def __init__(
        self,
        *,
        image_shape: ImageShape,
        num_classes: PositiveInt,
        conv_features: PositiveInt = 128,
        types: PositiveInt = 32,
        dims: PositiveInts = (4, 8, 8, 8),
        class_dim: PositiveInt = 32,
        routing: AnyRouting = "dynamic",
        grid_routing: AnyRouting = "dynamic",
        decoder_channels: int = 16,
        decoder_features: Sequence[int] | None = (64, 32, 16),
        decoder_strides: Sequence[int] = (1, 2, 2),
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = image_shape
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        normalized = {"batch_axis": batch_axis, **options}
        if len(dims) < 2 or dims[-2] != dims[-1]:
            raise ValueError(
                "dims are of two cells at least, of which the last two have the same, since their "
                f"capsules are one list that votes for the classes; not {dims}"
            )
        windows = Windows.of((height, width), 3, 1, "SAME")
        glorot = nnx.initializers.glorot_uniform()
        self.convolution = WindowConv(
            windows, channels, conv_features, kernel_init=glorot, **options
        )
        self.norm = BatchNorm(conv_features, **normalized)
        below, cells = (height, width, conv_features), list[Cell]()
        for number, dim in enumerate(dims, start=1):
            of_cell = grid_routing if number == len(dims) else None
            cells.append(Cell(below, types, dim, routing=of_cell, **options))
            below = (*cells[-1].output_shape[:2], types * dim)
        self.cells = nnx.List(cells)
        self.class_caps = DenseCaps(
            sum(math.prod(cell.output_shape[:3]) for cell in cells[-2:]),
            dims[-1],
            num_classes,
            class_dim,
            routing=routing,
            **options,
        )
        if decoder_features is not None:
            self.decoder = ConvDecoder(
                class_dim,
                image_shape,
                channels=decoder_channels,
                features=decoder_features,
                strides=decoder_strides,
                **normalized,
            )

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        x = self.norm(nnx.relu(self.convolution(images)))
        poses = []
        for cell in self.cells:
            pose = cell(x, keys)
            poses.append(lax.collapse(pose, 1, 4))
            x = _as_maps(pose)
        pose = jnp.concatenate([poses[-1], poses[-2]], axis=1)
        return self.class_caps(Capsules(pose, norm(pose)), **next(keys))
