"""Ordinary image files, as a network takes them."""

import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from capsjax.preprocessing import size_to_fit
from train.system.errors import UserError
from train.system.files import reading

_MODES = {1: "L", 3: "RGB"}
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_GREY_MODES = ("1", "L", "LA", *_DEEP_MODES)

_DARK = 31
"""A value up to which the brightest pixel is no white: masks of 0 and 1, shades of 0 to 16."""


def as_text(shape: Sequence[int]) -> str:
    """The shape of an image as messages and the names of data sets have it."""
    return "x".join(map(str, shape))


def is_blank(image: np.ndarray) -> bool:
    """Whether all pixels of an image `[height, width, channels]` are alike."""
    return bool((image == image[0, 0]).all())


def tell_of_blank(files: Sequence[Path | str]) -> None:
    """Tells on stderr of files whose images show nothing, if there are any."""
    if files:
        others = f" and {len(files) - 1} more" if len(files) > 1 else ""
        print(
            f"note: {files[0]}{others} came out as one single value everywhere: see whether "
            "there is a picture in the file",
            file=sys.stderr,
        )


def tell_of_dark(what: str, brightest: int) -> None:
    """Tells on stderr of images that are nearly black, if they are, such as those of 0 and 1."""
    if brightest <= _DARK:
        print(
            f"note: no value of {what} is above {brightest}, where white is 255: the network sees "
            "them almost black",
            file=sys.stderr,
        )


class Picture(NamedTuple):
    """An image file as a network takes it, and what it shows before it is centred on black.

    Attributes:
        pixels: `[height, width, channels]` uint8.
        is_blank: see `is_blank`.
        is_dark_on_light: see `is_dark_on_light`.
    """

    pixels: np.ndarray
    is_blank: bool
    is_dark_on_light: bool


def read_image(
    path: Path,
    shape: tuple[int, int, int] | None = None,
    *,
    invert: bool = False,
    content: BinaryIO | None = None,
) -> np.ndarray:
    """Reads a PNG, JPEG or other image file of any size.

    The image is turned upright as its camera says, brought to 8 bits, laid on black where it is
    transparent, or on white if hardly anything is seen of it on black, shrunk or enlarged to fit,
    its proportions kept, and centred on black. What is 255 in 8 bits is the largest integer of the
    file's kind; for 32-bit integers and floats, of which files rarely take all, it is the smallest
    of 1 (of floats), 255, 65,535 and the largest integer that no value exceeds.

    Args:
        path: the file.
        shape: `(height, width, channels)` of the result uint8, 1 channel for grey and 3 for colour;
            by default that of the image, which is in colour unless the file is grey.
        invert: swap dark and light first, for networks that learnt light on dark.
        content: what is in the file, where it is no file of its own.

    Raises:
        UserError: if the file is missing, no image, too large to be one, or has values below 0 or
            beyond its range.
    """
    return _fitted(_whole(path, shape, invert, content), shape)


def read_picture(path: Path, shape: tuple[int, int, int], *, invert: bool = False) -> Picture:
    """Reads an image as `read_image` does, and looks at what it shows."""
    image = _whole(path, shape, invert, None)
    seen = _fitted(image, None)
    return Picture(_fitted(image, shape), is_blank(seen), is_dark_on_light(seen))


def _whole(
    path: Path, shape: tuple[int, int, int] | None, invert: bool, content: BinaryIO | None
) -> Image.Image:
    """The image of a file in its own size, in the colours that are asked for."""
    if shape is not None and shape[2] not in _MODES:
        raise UserError(f"a network for images with {shape[2]} channels cannot read image files.")
    image, is_grey = _upright(path, content)
    image = image.convert(_MODES[shape[2] if shape else 1 if is_grey else 3])
    return ImageOps.invert(image) if invert else image


def _fitted(image: Image.Image, shape: tuple[int, int, int] | None) -> np.ndarray:
    """The pixels of an image, made to fit on black; by default in its own size."""
    height, width = shape[:2] if shape else (image.height, image.width)
    if image.size != (width, height):
        # Not `ImageOps.pad`: of an image that is much longer than wide it leaves nothing.
        high, wide = size_to_fit((image.height, image.width), (height, width))
        ground = Image.new(image.mode, (width, height))
        where = (round((width - wide) / 2), round((height - high) / 2))
        ground.paste(image.resize((wide, high), Image.Resampling.LANCZOS), where)
        image = ground
    return np.asarray(image, np.uint8).reshape(height, width, len(image.getbands()))


def _upright(path: Path, content: BinaryIO | None) -> tuple[Image.Image, bool]:
    """Reads an opaque image, turned as its camera says, and whether its file is grey."""
    with reading(path, "an image", "see whether another program opens it"):
        try:
            # Not by its path: of TIFFs that Pillow maps into memory it confuses the sides, if they
            # are to be turned.
            stream = contextlib.nullcontext(content) if content else path.open("rb")
            with stream as opened, Image.open(opened) as file:
                # Pillow itself warns from here on, and refuses twice as much.
                if file.width * file.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                    raise Image.DecompressionBombError
                is_grey = file.mode in _GREY_MODES
                upright: Image.Image = ImageOps.exif_transpose(file)
                if file.mode in _DEEP_MODES:
                    tags = getattr(file, "tag_v2", {})
                    if file.format == "PPM" and file.mode == "I":
                        tags = {BITSPERSAMPLE: (16,)}  # to which Pillow has scaled it
                    upright = _in_8_bits(path, upright, tags)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UserError(f"{path} is too large an image: shrink it first.") from error
        except UnidentifiedImageError as error:
            raise UserError(f"{path} is not an image file that can be read.") from error
        if not upright.has_transparency_data:
            return upright.convert("L" if upright.mode == "L" else "RGB"), is_grey
        upright = upright.convert("RGBA")
    grounds = [Image.new("RGBA", upright.size, ground) for ground in ("black", "white")]
    on_black, on_white = (Image.alpha_composite(ground, upright) for ground in grounds)
    spans = [int(np.ptp(np.asarray(image.convert("L")))) for image in (on_black, on_white)]
    return (on_white if 2 * spans[0] < spans[1] else on_black), is_grey


def _in_8_bits(path: Path, image: Image.Image, tags: Any) -> Image.Image:
    """Scales a grey image of more than 8 bits by its range, see `read_image`."""
    values, is_signed = np.asarray(image), tags.get(SAMPLEFORMAT) == (2,)
    (bits,) = tags.get(BITSPERSAMPLE, (32 if image.mode == "I" else 16,))
    ranges = [255, 65_535, 2 ** (bits - is_signed) - 1]
    if image.mode == "F":
        ranges = [1, 255, 65_535]
    elif bits <= 16:
        ranges = ranges[-1:]
    elif not is_signed:
        values = values.view(np.uint32)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= ranges[-1]:
        raise UserError(
            f"{path} has values from {low:g} to {high:g}, but an image of its kind has them from 0 "
            f"to {' or '.join(map(str, ranges))}: save it in one of these ranges, such as in 8 "
            "bits."
        )
    scale = 255 / next(value for value in ranges if high <= value)
    scaled = np.rint(values * scale).astype(np.uint8)
    # Pillow heeds this tag in images of 8 bits alone.
    return Image.fromarray(255 - scaled if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else scaled)


def is_dark_on_light(image: np.ndarray) -> bool:
    """Whether the border of an image `[height, width, channels]` is light."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(np.median(border) > 127)
