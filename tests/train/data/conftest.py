"""Small data sets for the tests of the data package."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from train.data import Split
from train.data.idx_source import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Fingerprint,
    IdxSource,
)


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array, not gzipped."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def to_idx() -> Callable[[np.ndarray], bytes]:
    return idx_bytes


@pytest.fixture
def split() -> Split:
    """23 random 6x5 images in four classes."""
    rng = np.random.default_rng(0)
    return Split(
        images=rng.integers(0, 256, (23, 6, 5, 1), dtype=np.uint8),
        labels=rng.integers(0, 4, 23, dtype=np.int32),
    )


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., tuple[IdxSource, Path]]:
    """Writes four small files and returns the source that they are official for, and the folder.

    It bears the name of a real set, so that tensorflow-datasets knows its features, and a host
    that can never exist.
    """

    def make(
        train_size: int = 30, test_size: int = 12, largest_label: int = 9
    ) -> tuple[IdxSource, Path]:
        rng = np.random.default_rng(1)
        folder = tmp_path / "files"
        folder.mkdir()
        fingerprints = {}
        for size, images, labels in (
            (train_size, TRAIN_IMAGES, TRAIN_LABELS),
            (test_size, TEST_IMAGES, TEST_LABELS),
        ):
            arrays = {
                images: rng.integers(0, 256, (size, 28, 28), dtype=np.uint8),
                labels: np.arange(size, dtype=np.uint8) % (largest_label + 1),
            }
            for name, array in arrays.items():
                content = gzip.compress(idx_bytes(array))
                (folder / name).write_bytes(content)
                sha256 = hashlib.sha256(content).hexdigest()
                fingerprints[name] = Fingerprint(len(content), sha256)
        source = IdxSource(
            name="mnist",
            url="http://host.invalid/mnist/",
            class_names=tuple("0123456789"),
            fingerprints=fingerprints,
        )
        return source, folder

    return make
