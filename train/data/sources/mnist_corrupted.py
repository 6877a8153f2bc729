"""MNIST-C: MNIST with fifteen corruptions, one at a time, and without any.

N. Mu, J. Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019, arXiv:1906.02337:
60,000 training and 10,000 test images of each, 28x28.

It is read from the official archive as it is: tensorflow-datasets unpacks it with TensorFlow.
"""

import functools
from pathlib import Path

import numpy as np

from train.data.dataset import Split
from train.data.formats import numpy_files
from train.data.official import OfficialFile, Source
from train.system.errors import UserError

_CORRUPTIONS = """
identity shot_noise impulse_noise glass_blur motion_blur shear scale rotate brightness translate
stripe fog spatter dotted_line zigzag canny_edges
"""
CORRUPTIONS = tuple(_CORRUPTIONS.split())

ARCHIVE = OfficialFile(
    name="mnist_c.zip",
    url="https://zenodo.org/record/3239543/files/mnist_c.zip",
    content="MNIST-C",
    size=246661575,
    checksum="af9ee8c6a815870c7fdde5af84c7bf8db0bcfa1f41056db83871037fba70e493",
    unpacked="mnist_c",
)


def _read(path: Path, *, corruption: str) -> tuple[Split, Split]:
    """Reads one corruption from the archive, or from the folder that was unpacked from it."""
    names = [f"{corruption}/{s}_{a}.npy" for s in ("train", "test") for a in ("images", "labels")]
    if path.is_dir():
        arrays = [numpy_files.read(path / name) for name in names]
    else:
        arrays = numpy_files.read_members(path, [f"{ARCHIVE.unpacked}/{name}" for name in names])
    return _split(path, *arrays[:2]), _split(path, *arrays[2:])


def _split(path: Path, images: np.ndarray, labels: np.ndarray) -> Split:
    if labels.dtype.kind not in "iu":
        raise UserError(f"{path} has labels of {labels.dtype}, not integers: unpack it again.")
    return Split(images, labels.astype(np.int32))


SOURCES = tuple(
    Source(
        name=f"mnist_corrupted/{corruption}",
        files=(ARCHIVE,),
        read=functools.partial(_read, corruption=corruption),
        image_shape=(28, 28, 1),
        class_names=tuple("0123456789"),
        tfds="mnist_corrupted",
    )
    for corruption in CORRUPTIONS
)
