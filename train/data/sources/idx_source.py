"""A data set that its publisher gives out as four IDX files: where they are, how to know them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats import idx
from train.data.sources.official import Fingerprint, OfficialFile, find

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"
FILE_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

_CONTENT = {
    TRAIN_IMAGES: "the training images",
    TRAIN_LABELS: "the training labels",
    TEST_IMAGES: "the test images",
    TEST_LABELS: "the test labels",
}


@dataclass(frozen=True)
class IdxSource:
    """A data set in four gzipped IDX files.

    Attributes:
        name: the data set's name, here and in tensorflow-datasets.
        url: the folder that holds the files, with its closing slash.
        class_names: one name per class.
        fingerprints: for each of `FILE_NAMES`, the official file's size and checksum.
        image_shape: `(height, width, channels)` of its images.
    """

    name: str
    url: str
    class_names: tuple[str, ...]
    fingerprints: Mapping[str, Fingerprint]
    image_shape: tuple[int, int, int] = (28, 28, 1)

    @property
    def files(self) -> tuple[OfficialFile, ...]:
        """The four files."""
        return tuple(
            OfficialFile(
                name, self.url + name, f"{_CONTENT[name]} of {self.name}", self.fingerprints[name]
            )
            for name in FILE_NAMES
        )

    def find(self, data_dir: str | Path) -> dict[str, Path]:
        """Finds the four official files in a folder and verifies their checksums.

        Args:
            data_dir: the folder that holds them under their official names.

        Returns:
            The path of each of `FILE_NAMES`.

        Raises:
            UserError: if a file is missing, cannot be read or is not the official one.
        """
        return find(self.files, data_dir)

    def read(self, paths: Mapping[str, Path]) -> Dataset:
        """Reads the four files.

        Args:
            paths: the path of each of `FILE_NAMES`.

        Returns:
            The data set, images uint8 [n, height, width, 1].

        Raises:
            UserError: if a file is not sound IDX or the files do not fit each other.
        """
        return Dataset(
            name=self.name,
            train=_read_split(paths[TRAIN_IMAGES], paths[TRAIN_LABELS]),
            test=_read_split(paths[TEST_IMAGES], paths[TEST_LABELS]),
            class_names=self.class_names,
        )


def _read_split(images: Path, labels: Path) -> Split:
    return Split(
        images=idx.read(images, ndim=3)[..., np.newaxis],
        labels=idx.read(labels, ndim=1).astype(np.int32),
    )
