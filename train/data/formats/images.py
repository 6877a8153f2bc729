"""Ordinary image files, as a network takes them."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from train.system.errors import UserError
from train.system.files import reading

_MODES = {1: "L", 3: "RGB"}
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "F")


def read_image(
    path: Path, shape: tuple[int, int, int] | None = None, *, invert: bool = False
) -> np.ndarray:
    """Reads a PNG, JPEG or other image file of any size.

    The image is turned upright as its camera says, laid on black where it is transparent, shrunk or
    enlarged to fit, its proportions kept, and centred on black.

    Args:
        path: the file.
        shape: `(height, width, channels)` of the result uint8, 1 channel for grey and 3 for colour;
            by default that of the image, which is in colour unless the file is grey.
        invert: swap dark and light first, for networks that learnt light on dark.

    Raises:
        UserError: if the file is missing, no image, or too large to be one.
    """
    if shape is not None and shape[2] not in _MODES:
        raise UserError(f"a network for images with {shape[2]} channels cannot read image files.")
    image, is_grey = _upright(path)
    height, width, channels = shape or (image.height, image.width, 1 if is_grey else 3)
    image = image.convert(_MODES[channels])
    if invert:
        image = ImageOps.invert(image)
    if image.size != (width, height):
        image = ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=0)
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def _upright(path: Path) -> tuple[Image.Image, bool]:
    """Reads an image on black, turned as its camera says, and whether its file is grey."""
    with reading(path, "an image", "see whether another program opens it"):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as file:
                is_grey = file.mode in _GREY_MODES
                upright = ImageOps.exif_transpose(file).convert("RGBA")
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is too large an image: shrink it first.") from error
        except UnidentifiedImageError as error:
            raise UserError(f"{path} is not an image file that can be read.") from error
    black = Image.new("RGBA", upright.size, "black")
    return Image.alpha_composite(black, upright), is_grey


def is_dark_on_light(image: np.ndarray) -> bool:
    """Whether the border of an image `[height, width, channels]` is light."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(np.median(border) > 127)
