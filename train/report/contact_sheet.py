"""Contact sheets: the first images of a data set with the names of their classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from train.data import Batch, load_dataset
from train.system.errors import UserError
from train.system.files import write_figure, writing

COLUMNS = 10
MOST = 1000
"""Images on a sheet."""


def write_contact_sheet(
    name: str,
    *,
    out: Path,
    split: Literal["train", "test"] = "train",
    count: int = 60,
    data_dir: Path | None = None,
) -> None:
    """Draws the first `count` images of a split into a PNG, or all, where there are fewer.

    `data_dir` is a folder with the data set's official files.

    Raises:
        UserError: on bad input, or if the file cannot be written.
    """
    if not 1 <= count <= MOST:
        raise UserError(f"--count is {count}: choose 1 to {MOST} images.")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out is {out}, but a PNG is drawn: name it so, as in {out.stem}.png.")
    dataset = load_dataset(name, data_dir=data_dir)
    examples = dataset.train if split == "train" else dataset.test
    batch = examples.gather(np.arange(min(count, len(examples))))
    title = f"{name}, {split}: the first {len(batch.labels)} of {len(examples):,}"
    with writing(out):
        write_figure(out, draw_contact_sheet(batch, dataset.class_names, title))


def draw_contact_sheet(batch: Batch, class_names: Sequence[str], title: str) -> Figure:
    """Draws images with the names of their classes, and below each its parts, if any.

    Of images with two channels, or more than three, the mean is shown.
    """
    count = len(batch.labels)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    below = [] if batch.parts is None else list(np.moveaxis(batch.parts, 1, 0))
    tiles = np.concatenate([batch.images, *below], axis=1)
    if tiles.shape[-1] != 3:
        tiles = tiles.mean(axis=-1)
    height, width = tiles.shape[1:3]
    size = (1.1 * columns, 0.6 + (1.1 * height / width + 0.25) * rows)
    figure = Figure(figsize=size, layout="constrained")
    for axes, tile, labels in zip(
        figure.subplots(rows, columns, squeeze=False).flat,
        tiles,
        batch.labels.reshape(count, -1),
        strict=False,
    ):
        axes.imshow(tile, cmap="gray", vmin=0, vmax=255)
        axes.set_title(", ".join(class_names[label] for label in labels), fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    return figure
