"""The images that the benchmark trains on."""

from pathlib import Path

import numpy as np

from train.data import Dataset, Split, catalog, load_dataset
from train.data.catalog import MADE_OF_MNIST

_TRAINING, _TEST = 60_000, 256


def load_or_imitate(name: str, *, data_dir: Path | None = None) -> tuple[Dataset, bool]:
    """A data set that is at hand, or random images of its shape, and whether it is an imitation.

    Those cost as much to train on. Nothing is downloaded; `data_dir` may hold the official files.

    Raises:
        UserError: if the files are not what they should be.
    """
    made = MADE_OF_MNIST.get(name)
    source = catalog.SOURCES.get("mnist" if made else name)
    if source is None or data_dir is not None or catalog.is_at_hand(name):
        return load_dataset(name, data_dir=data_dir), False
    random = np.random.default_rng(0)

    def split(size: int) -> Split:
        return Split(
            images=random.integers(0, 256, (size, *source.image_shape), dtype=np.uint8),
            labels=random.integers(0, len(source.class_names), size, dtype=np.int32),
        )

    imitation = Dataset(source.name, split(_TRAINING), split(_TEST), source.class_names)
    return made(imitation) if made else imitation, True
