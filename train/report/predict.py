"""Classifying image files with the network of a run."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.data import labels_per_image
from train.data.formats.images import is_dark_on_light, read_image, read_images
from train.report.loading import lengths_of, load_model
from train.run.checkpoint_files import Which
from train.run.folder import load_run


def predict(
    folder: Path, paths: Sequence[Path], *, which: Which = "last", invert: bool = False
) -> list[dict[str, Any]]:
    """Classifies image files, dark and light swapped first if `invert`.

    Returns:
        For each file its `image`, the predicted `classes`, as many as an image of the run's data
        shows, the most present first; the first of them as `class`, its `length`, the `lengths` of
        all class capsules by name, and `dark_on_light`, whether what the network saw has a light
        border.

    Raises:
        UserError: on bad input.
    """
    run = load_run(folder)
    read = functools.partial(read_image, shape=run.image_shape, invert=invert)
    images = read_images(paths, run.image_shape, read)
    of_images = lengths_of(load_model(run, which), run.config, images)
    several = labels_per_image(run.config.data.dataset)
    results = []
    for path, image, lengths in zip(paths, images, of_images, strict=True):
        longest = np.argsort(-lengths, kind="stable")[:several]
        by_class = dict(zip(run.class_names, map(float, lengths), strict=True))
        classes = [run.class_names[label] for label in longest]
        results.append(
            {
                "image": str(path),
                "class": classes[0],
                "classes": classes,
                "length": float(lengths[longest[0]]),
                "lengths": by_class,
                "dark_on_light": is_dark_on_light(image),
            }
        )
    return results
