"""Contact sheets: images of a data set with the names of their classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from train.data import Batch, classes_of
from train.system.lettering import plain, plain_names

COLUMNS = 10
LONGEST = 17
"""Letters of a name, so many that those of two images do not meet."""


def draw_contact_sheet(batch: Batch, class_names: Sequence[str], title: str) -> Figure:
    """Draws images with the names of their classes, and below each its parts, if any.

    Of images with two channels, or more than three, the mean is shown.
    """
    count, names = len(batch.labels), plain_names(tuple(class_names), LONGEST)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    below = [] if batch.parts is None else list(np.moveaxis(batch.parts, 1, 0))
    gap = np.full_like(batch.images[:, : max(1, batch.images.shape[1] // 14)], 255)
    tiles = np.concatenate([batch.images, *(x for part in below for x in (gap, part))], axis=1)
    if tiles.shape[-1] != 3:
        tiles = tiles.mean(axis=-1)
    height, width = tiles.shape[1:3]
    size = (1.1 * columns, 0.6 + (1.1 * height / width + 0.25) * rows)
    figure = Figure(figsize=size, layout="constrained")
    for axes, tile, labels in zip(
        figure.subplots(rows, columns, squeeze=False).flat,
        tiles,
        batch.labels,
        strict=False,
    ):
        axes.imshow(tile, cmap="gray", vmin=0, vmax=255)
        shown = ", ".join(names[label] for label in classes_of(labels)) or "none"
        axes.set_title(shown, fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    parts = "; below each image its parts" if below else ""
    figure.suptitle(plain(title) + parts, fontsize=10)
    return figure
