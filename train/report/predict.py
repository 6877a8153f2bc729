"""What the network of a run sees in image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from train.config.fit_config import FitConfig
from train.data import labels_per_image
from train.data.formats.images import is_dark_on_light, read_image
from train.learn.objective import Objective
from train.report.evaluate import load_model
from train.run.checkpoints import Which
from train.run.folder import load_run

_BATCH = 64


def predict(
    folder: Path, paths: Sequence[Path], *, which: Which = "last", invert: bool = False
) -> list[dict[str, Any]]:
    """Classifies image files.

    Args:
        folder: the run.
        paths: the files.
        which: the newest checkpoint, or the one with the highest test accuracy.
        invert: swap dark and light first.

    Returns:
        For each file its `image`, the predicted `classes`, as many as an image of the run's data
        shows, the most present first; the first of them as `class`, its `length`, the `lengths` of
        all class capsules by name, and `dark_on_light`, whether what the network saw has a light
        border.

    Raises:
        UserError: on bad input.
    """
    run = load_run(folder)
    images = [read_image(path, run.image_shape, invert=invert) for path in paths]
    lengths = lengths_of(load_model(run, which), run.config, np.stack(images))
    several = labels_per_image(run.config.data.dataset)
    return [
        _result(path, image, row, run.class_names, several)
        for path, image, row in zip(paths, images, lengths, strict=True)
    ]


def lengths_of(model: nnx.Module, config: FitConfig, images: np.ndarray) -> np.ndarray:
    """How present a network finds each class in images.

    Args:
        model: the network, set to normalise as it has learned to.
        config: its configuration, which says how it sees images.
        images: uint8 `[n, height, width, channels]`.

    Returns:
        The lengths of the class capsules, `[n, classes]`.
    """
    objective, dtype = Objective.of(config), jnp.dtype(config.model.param_dtype)
    apply = nnx.jit(lambda model, images: model(images).lengths)
    return np.concatenate(
        [
            np.asarray(apply(model, objective.normalise(jnp.asarray(some), dtype)))
            for some in np.split(images, range(_BATCH, len(images), _BATCH))
        ]
    )


def _result(
    path: Path, image: np.ndarray, lengths: np.ndarray, class_names: Sequence[str], several: int
) -> dict[str, Any]:
    longest = np.argsort(-lengths, kind="stable")[:several]
    return {
        "image": str(path),
        "class": class_names[longest[0]],
        "classes": [class_names[label] for label in longest],
        "length": float(lengths[longest[0]]),
        "lengths": {name: float(x) for name, x in zip(class_names, lengths, strict=True)},
        "dark_on_light": is_dark_on_light(image),
    }
