"""What becomes of the pixels of an image before a network sees it."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from capsjax._checks import Number, PositiveInt, PositiveNumber, check_fields

_LANCZOS = 3
"""Side lobes of the window by which images are resized."""

_GREY = (19595, 38470, 7471)
"""What red, green and blue count in 65,536ths (ITU-R BT.601)."""

_BITS = 22
"""Digits of the fixed-point weights by which 8-bit images are resized."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How pixels become the numbers that a network sees: scaled, then cropped.

    Attributes:
        mean, std: of the pixels as numbers from 0 to 1; the first is subtracted from them, and they
            are divided by the second.
        standardise: whether each image is given mean 0 and variance 1 over all its pixels and
            channels, instead of the two before. It is divided by the deviation of one of 255 grey
            levels in a single pixel at least: an image of one grey level becomes zeros.
        crop: side of the square that the network sees, the middle of the image; None for all of it.

    Raises:
        ValueError: a value is not one of these, or `standardise` goes with a mean or a deviation.

    Examples:
        >>> import jax.numpy as jnp
        >>> from capsjax.preprocessing import Preprocessing
        >>> see = Preprocessing(mean=0.5, std=0.5, crop=2)
        >>> see(jnp.full((1, 4, 4, 1), 255, jnp.uint8), jnp.float32).tolist()
        [[[[1.0], [1.0]], [[1.0], [1.0]]]]
    """

    mean: Number = 0.0
    std: PositiveNumber = 1.0
    standardise: bool = False
    crop: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.standardise and (self.mean, self.std) != (0, 1):
            raise ValueError(
                f"mean={self.mean} and std={self.std} do not go with standardise=True, by which "
                "each image has its own: leave them out"
            )

    def __call__(self, images: jax.Array, dtype: DTypeLike) -> jax.Array:
        """Makes what the network sees of a batch of images.

        Args:
            images: `[..., height, width, channels]`, uint8 from 0 to 255 or floats from 0 to 1.
            dtype: of the result, and of the computation.

        Returns:
            `[..., height, width, channels]`, or `[..., crop, crop, channels]`.

        Raises:
            ValueError: `crop` is longer than a side of theirs.
        """
        scaled = self.scaled(images, dtype)
        if self.crop is None:
            return scaled
        self.seen_shape(scaled.shape[-3:])
        top, left = ((size - self.crop) // 2 for size in scaled.shape[-3:-1])
        return scaled[..., top : top + self.crop, left : left + self.crop, :]

    def scaled(self, images: jax.Array, dtype: DTypeLike) -> jax.Array:
        """The same without the crop."""
        unit = images.astype(dtype)
        if jnp.issubdtype(images.dtype, jnp.integer):
            unit = unit / 255
        if self.standardise:
            return _standardised(unit)
        if (self.mean, self.std) == (0, 1):
            return unit
        return (unit - self.mean) / self.std

    def seen_shape(self, image_shape: Sequence[int]) -> tuple[int, int, int]:
        """The shape `(height, width, channels)` of what is seen of images of a shape.

        Raises:
            ValueError: `crop` is longer than a side of theirs.
        """
        height, width, channels = image_shape
        if self.crop is None:
            return height, width, channels
        if self.crop > min(height, width):
            raise ValueError(
                f"crop is {self.crop}, but the images are {height}x{width}: choose 1 to "
                f"{min(height, width)}"
            )
        return self.crop, self.crop, channels


def _standardised(images: jax.Array) -> jax.Array:
    axes = (-3, -2, -1)
    least = 1 / (255 * math.prod(images.shape[-3:]) ** 0.5)
    mean = jnp.mean(images, axis=axes, keepdims=True)
    return (images - mean) / jnp.maximum(jnp.std(images, axis=axes, keepdims=True), least)


def fitted(images: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Brings images to the size and colours of those that a network was trained on.

    Colours become grey by ITU-R BT.601, and grey becomes a colour. Images of another size are
    shrunk or enlarged to fit, their proportions kept, and centred on black. They are resized by
    Lanczos windows of three lobes, wide enough to leave nothing out: first the width and then the
    height, or where that loses more than twice as many pixels the height first. Those of 8 bits are
    rounded after each. So they come to the numbers that Pillow has, from its version 13 on.

    Args:
        images: `[n, height, width, channels]`, uint8, or floats from 0 to 1.
        image_shape: `(height, width, channels)` to come to.

    Returns:
        `[n, *image_shape]`, in the dtype of the images.

    Raises:
        ValueError: the channels are neither those that are wanted nor grey or red, green and blue.

    Examples:
        >>> import numpy as np
        >>> from capsjax.preprocessing import fitted
        >>> fitted(np.full((1, 2, 4, 3), 255, np.uint8), (4, 4, 1))[0, :, 0, 0].tolist()
        [0, 255, 255, 0]
    """
    height, width, channels = image_shape
    found = images.shape[-1]
    if found != channels:
        if {found, channels} != {1, 3}:
            raise ValueError(
                f"images [n, height, width, channels] must have {channels} channels, not {found} "
                f"as in {list(images.shape)}: give them with the channels last, and without alpha"
            )
        images = _grey(images) if channels == 1 else np.repeat(images, 3, axis=-1)
    _, high, wide, _ = images.shape
    if (high, wide) == (height, width):
        return images
    if not high * wide:
        raise ValueError(f"images must have pixels, and those of {list(images.shape)} have none")
    size = size_to_fit((high, wide), (height, width))
    resized, axes = images, (2, 1)
    if high - size[0] > max(0, 2 * (wide - size[1])):
        axes = (1, 2)
    for axis in axes:
        resized = _resized(resized, size[axis - 1], axis)
    top, left = ((whole - part) / 2 for whole, part in zip((height, width), size, strict=True))
    ground = np.zeros((len(images), *image_shape), images.dtype)
    rows, columns = (slice(round(n), round(n) + m) for n, m in zip((top, left), size, strict=True))
    ground[:, rows, columns] = resized
    return ground


def size_to_fit(found: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """The height and the width of an image that is made to fit in others, in its proportions.

    At least one pixel is left.

    Examples:
        >>> from capsjax.preprocessing import size_to_fit
        >>> size_to_fit((10, 30), (28, 28))
        (9, 28)
    """
    (high, wide), (height, width) = found, into
    if wide * height > width * high:
        return max(1, round(high / wide * width)), width
    if wide * height < width * high:
        return height, max(1, round(wide / high * height))
    return height, width


def _grey(images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        total = images.astype(np.uint32) @ np.asarray(_GREY, np.uint32) + 2**15
        return (total >> 16).astype(np.uint8)[..., None]
    wide = np.promote_types(images.dtype, np.float32)
    return (images.astype(wide) @ (np.asarray(_GREY, wide)[:, None] / 2**16)).astype(images.dtype)


def _resized(images: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Images with another size along one axis."""
    if images.shape[axis] == size:
        return images
    weights = _weights(images.shape[axis], size)
    if images.dtype == np.uint8:
        # Sums of these integers are exact in float64, whose products are fast.
        whole = np.trunc(weights * 2**_BITS + np.copysign(0.5, weights))
        total = np.tensordot(whole, images.astype(np.float64), axes=(1, axis)) + 2 ** (_BITS - 1)
        values = np.clip(np.floor(total / 2**_BITS), 0, 255)
    else:
        values = np.clip(np.tensordot(weights, images.astype(np.float64), axes=(1, axis)), 0, 1)
    return np.moveaxis(values, 0, axis).astype(images.dtype)


def _weights(n_in: int, n_out: int) -> np.ndarray:
    """What each of so many pixels of a line counts in each of so many others, `[n_out, n_in]`."""
    step = n_in / n_out
    stretch = max(step, 1.0)
    centres = (np.arange(n_out)[:, None] + 0.5) * step
    pixels = np.arange(n_in)[None, :]
    first, last = (
        np.floor(np.clip(centres + side * _LANCZOS * stretch + 0.5, 0, n_in)) for side in (-1, 1)
    )
    x = (pixels - centres + 0.5) / stretch
    window = np.sinc(x) * np.sinc(x / _LANCZOS)
    window = np.where((pixels >= first) & (pixels < last) & (abs(x) < _LANCZOS), window, 0)
    return window / window.sum(axis=1, keepdims=True)
