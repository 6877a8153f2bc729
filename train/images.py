"""Ordinary image files, as a network takes them."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from train.errors import UserError

_MODES = {1: "L", 3: "RGB"}


def read_image(path: Path, shape: tuple[int, int, int], *, invert: bool = False) -> np.ndarray:
    """Reads a PNG, JPEG or other image file of any size.

    The image is turned upright as its camera says, laid on black where it is transparent, shrunk or
    enlarged to fit, its proportions kept, and centred on black.

    Args:
        path: the file.
        shape: `(height, width, channels)` of the result, 1 channel for grey and 3 for colour.
        invert: swap dark and light first, for networks that learnt light on dark.

    Returns:
        uint8 `shape`.

    Raises:
        UserError: if the file is missing, no image, or too large to be one.
    """
    height, width, channels = shape
    if channels not in _MODES:
        raise UserError(f"a network for images with {channels} channels cannot read image files.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities that Pillow copes with
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file).convert("RGBA")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is too large an image: shrink it first.") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image file that can be read.") from error
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}.") from error
    # Pillow tells a damaged file in the exceptions of its decoders, of any kind.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as an image ({reason}).") from error

    black = Image.new("RGBA", upright.size, "black")
    image = Image.alpha_composite(black, upright).convert(_MODES[channels])
    if invert:
        image = ImageOps.invert(image)
    if image.size != (width, height):
        image = ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=0)
    return np.asarray(image, np.uint8).reshape(shape)


def is_dark_on_light(image: np.ndarray) -> bool:
    """Says whether the border of an image `[height, width, channels]` is light."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(np.median(border) > 127)
