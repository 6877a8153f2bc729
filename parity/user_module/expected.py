"""`import --check-on`: imported weights on images of which PyTorch's outputs are known."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from parity.check.comparison import error_between
from parity.layouts.match import Match
from parity.layouts.state_files import State
from parity.layouts.table import OUTPUTS
from parity.user_module.calling import What
from parity.user_module.diagnosis import diagnose
from parity.user_module.sides import Sides, capsule_sizes, network, precision, with_output
from train.data import centre_crop
from train.data.formats import numpy_files
from train.data.formats.images import as_text
from train.learn.network import seen_shape
from train.run.folder import Run
from train.system.errors import UserError

MOST_IMAGES = 128
"""Images of a file: they are one batch, on which the logits of some networks depend."""


def check_on(path: Path, run: Run, found: Match, state: State) -> str:
    """Computes outputs that PyTorch's network is known to have; a sentence that they agree.

    The `.npz` file has `images`, uint8 or floats from 0 to 1, or what the network was given of them
    as `inputs`; and `lengths` `[n, classes]` (as they are, squared, or their softmax) or `poses`
    `[n, classes, dim]`, float32 or float64.

    Raises:
        UserError: if the file has something else, or the outputs differ.
    """
    images, what, theirs = _read(path, run, found)
    kinds = OUTPUTS if what == "lengths" else ("poses",)
    with precision("float32"):
        model = network(run.config, run.image_shape, found, state, "float32")
        narrow = [
            with_output(model, images.astype(np.float32), what, kind, theirs.astype(np.float32))
            for kind in kinds
        ]
    with precision("float64"):
        model = network(run.config, run.image_shape, found, state, "float64")
        wide = [with_output(model, images, what, kind, theirs.astype(np.float64)) for kind in kinds]
    errors = [error_between(sides.ours, sides.theirs).relative for sides in wide]
    best = int(np.argmin(errors))
    limit = wide[best].forward_limit
    if theirs.dtype != np.float64:
        # PyTorch rounds in float32 as capsjax does, which is seen.
        rounding = error_between(narrow[best].ours, wide[best].ours.astype(np.float32)).relative
        limit = max(narrow[best].forward_limit, 2 * rounding)
    if not math.isfinite(limit):
        raise UserError(
            f"of images of {path} the network computes {what} that are not finite. Nothing is "
            "written."
        )
    if errors[best] <= limit:
        shown = what if kinds[best] in (what, "lengths") else f"lengths ({kinds[best]})"
        return f"on {len(images)} images of {path} {shown} agree to {errors[best]:.0e}{_but(run)}"
    # What is nearest may be so by chance, where all lengths are small.
    said = kinds.index(found.layout.lengths_are) if what == "lengths" else 0
    raise UserError(
        f"the network computes other {what} than {path} has: a relative error of "
        f"{errors[said]:.1e}, where rounding is {limit:.1e}; {_why(wide[said], limit)}. Nothing is "
        "written."
    )


def _but(run: Run) -> str:
    """What of the run was not checked, which is its coarser dtypes."""
    model = run.config.model
    coarser = dict.fromkeys(d for d in (model.dtype, model.param_dtype) if d == "bfloat16")
    return "".join(f", in float32: the run, in {dtype}, rounds more" for dtype in coarser)


def _why(sides: Sides, limit: float) -> str:
    """What would make them agree."""
    with precision("float64"):
        found = diagnose(sides.within(limit))
    hint = "" if found.agreeing else "; `check --against FILE.py:CLASS`, with its code, sees more"
    return found.sentence + hint


def _read(path: Path, run: Run, found: Match) -> tuple[np.ndarray, What, np.ndarray]:
    """Images as the network sees them, float64 `[n, height, width, channels]`, and outputs."""
    names = {name.removesuffix(".npy") for name in numpy_files.members(path)}
    of_images = [name for name in ("images", "inputs") if name in names]
    kinds: list[What] = [name for name in ("lengths", "poses") if name in names]
    if len(of_images) != 1 or len(kinds) != 1:
        raise UserError(
            f"{path} has the arrays {', '.join(sorted(names))}, but must have images (or inputs, "
            "as the network was given them) and lengths (or poses)."
        )
    images, theirs = numpy_files.read_members(path, [f"{of_images[0]}.npy", f"{kinds[0]}.npy"])
    if images.ndim == 0 or images.dtype.kind not in "uif":
        raise UserError(f"{path} has {of_images[0]} as {images.dtype} {list(images.shape)}.")
    if not 0 < len(images) <= MOST_IMAGES:
        raise UserError(f"{path} has {len(images)} images, but must have 1 to {MOST_IMAGES}.")
    shape = capsule_sizes(found, len(images))[: 2 if kinds[0] == "lengths" else 3]
    # But for unit axes, which a norm or a product of matrices leaves.
    has_shape = [n for n in theirs.shape if n != 1] == [n for n in shape if n != 1]
    if theirs.dtype not in (np.float32, np.float64) or not has_shape:
        raise UserError(
            f"{path} has {kinds[0]} as {theirs.dtype} {list(theirs.shape)}, but must have them as "
            f"float32 or float64 {list(shape)}."
        )
    for name, array in ((of_images[0], images), (kinds[0], theirs)):
        if not np.isfinite(array).all():
            raise UserError(f"{path} has {name} that are not finite.")
    seen = _seen(path, run, images, is_pixels=of_images[0] == "images")
    return seen, kinds[0], theirs.reshape(shape)


def _seen(path: Path, run: Run, images: np.ndarray, *, is_pixels: bool) -> np.ndarray:
    shapes = dict.fromkeys([seen_shape(run.config, run.image_shape), run.image_shape])
    for height, width, channels in shapes:
        first = (channels, height, width)
        if images.shape[1:] == first:
            images = np.moveaxis(images, 1, -1)
        elif images.shape[1:] == (height, width) and channels == 1:
            images = images[..., np.newaxis]
    if images.shape[1:] not in shapes:
        raise UserError(
            f"{path} has images {list(images.shape)}, but the network is for "
            f"{' or '.join(map(as_text, shapes))}."
        )
    side = run.config.data.crop
    if side is not None and images.shape[1:] == run.image_shape:
        images = centre_crop(images, side)
    is_unit = images.dtype == np.uint8 or (images.dtype.kind == "f" and images.min() >= 0)
    if is_pixels and not (is_unit and (images.dtype == np.uint8 or images.max() <= 1)):
        raise UserError(
            f"{path} has images that are no pixels, uint8 or floats from 0 to 1: call what the "
            "network was given, normalised, inputs."
        )
    if not is_pixels:
        return images.astype(np.float64)
    settings: Any = run.config.changed(crop=None).data
    with precision("float64"):
        return np.asarray(settings.preprocessing(jnp.asarray(images), jnp.dtype("float64")))
