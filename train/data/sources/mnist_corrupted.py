"""MNIST-C: MNIST with fifteen corruptions, one at a time, and without any.

It is read from the official archive as it is: tensorflow-datasets unpacks it with TensorFlow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats import npy, zipped
from train.data.formats.packed import GET_IT_AGAIN
from train.data.sources.official import Fingerprint, OfficialFile
from train.system.errors import UserError

CORRUPTIONS = (
    "identity",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "shear",
    "scale",
    "rotate",
    "brightness",
    "translate",
    "stripe",
    "fog",
    "spatter",
    "dotted_line",
    "zigzag",
    "canny_edges",
)

ARCHIVE = OfficialFile(
    name="mnist_c.zip",
    url="https://zenodo.org/record/3239543/files/mnist_c.zip",
    content="MNIST-C",
    fingerprint=Fingerprint(
        246661575, "af9ee8c6a815870c7fdde5af84c7bf8db0bcfa1f41056db83871037fba70e493"
    ),
    unpacked="mnist_c",
)


@dataclass(frozen=True)
class MnistCorrupted:
    """MNIST with one corruption: 60,000 training and 10,000 test images, 28x28.

    Attributes:
        corruption: one of `CORRUPTIONS`.
        files: the archive, which unpacked is a folder with a folder for each corruption.

    Reference:
        N. Mu, J. Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019,
        arXiv:1906.02337.
    """

    corruption: str
    files: tuple[OfficialFile, ...] = (ARCHIVE,)
    tfds_name: str = "mnist_corrupted"
    image_shape: tuple[int, int, int] = (28, 28, 1)
    class_names: tuple[str, ...] = tuple("0123456789")

    @property
    def name(self) -> str:
        """What `load_dataset` calls it."""
        return f"{self.tfds_name}/{self.corruption}"

    def read(self, paths: Mapping[str, Path]) -> Dataset:
        """Reads what belongs to the corruption, from the archive or what was unpacked from it.

        Raises:
            UserError: if a file is missing or damaged, or they do not fit each other.
        """
        path = paths[ARCHIVE.name]
        return Dataset(
            name=self.name,
            train=self._read_split(path, "train"),
            test=self._read_split(path, "test"),
            class_names=self.class_names,
        )

    def _read_split(self, path: Path, split: str) -> Split:
        images = self._read_array(path, f"{split}_images.npy")
        labels = self._read_array(path, f"{split}_labels.npy")
        if labels.dtype.kind not in "iu":
            raise UserError(f"{path} has labels of {labels.dtype} for {self.name}: {GET_IT_AGAIN}")
        return Split(images, labels.astype(np.int32))

    def _read_array(self, path: Path, name: str) -> np.ndarray:
        if path.is_dir():
            return npy.read(path / self.corruption / name)
        member = f"mnist_c/{self.corruption}/{name}"
        with zipped.member(path, member) as file:
            return npy.read_from(file, f"{path}, {member},")


SOURCES = {source.name: source for source in map(MnistCorrupted, CORRUPTIONS)}
