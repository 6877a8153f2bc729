"""EMNIST: handwritten letters and digits in the format of MNIST, upright here.

G. Cohen, S. Afshar, J. Tapson and A. van Schaik, "EMNIST: an extension of MNIST to handwritten
letters", 2017, arXiv:1702.05373. The published images lie on their side: rows and columns are
exchanged in them. The labels of the letters begin with 1 there.
"""

import functools
import gzip
import string
import zipfile
from pathlib import Path

import numpy as np

from train.data.dataset import Split
from train.data.official import OfficialFile, Source
from train.data.sources.mnist import parse_idx
from train.system.files import reading

_ARCHIVE = OfficialFile(
    "gzip.zip",
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
    "EMNIST in the format of MNIST",
    561753746,
    "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
    unpacked="gzip",
)


def read(path: Path, *, part: str, first_label: int) -> tuple[Split, Split]:
    """Reads a part of EMNIST from the archive, verified before, or from the folder it unpacks to.

    Raises:
        UserError: if a file is missing or damaged.
    """

    def content(name: str) -> bytes:
        if path.is_dir():
            return (path / name).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"gzip/{name}")

    def split(kind: str) -> Split:
        images, labels = (
            parse_idx(gzip.decompress(content(f"emnist-{part}-{kind}-{what}-ubyte.gz")), ndim=ndim)
            for what, ndim in (("images-idx3", 3), ("labels-idx1", 1))
        )
        upright = np.ascontiguousarray(np.swapaxes(images, 1, 2))[..., None]
        return Split(upright, labels.astype(np.int32) - first_label)

    with reading(path, "EMNIST", "get it again"):
        return split("train"), split("test")


_DIGITS, _LETTERS = string.digits, string.ascii_uppercase
# Small letters that look like large ones are of the same class.
_MERGED = _DIGITS + _LETTERS + "abdefghnqrt"
_PARTS = {
    "byclass": _DIGITS + _LETTERS + string.ascii_lowercase,
    "bymerge": _MERGED,
    "balanced": _MERGED,
    "letters": _LETTERS,
    "digits": _DIGITS,
    "mnist": _DIGITS,
}

SOURCES = tuple(
    Source(
        name=f"emnist/{part}",
        files=(_ARCHIVE,),
        read=functools.partial(read, part=part, first_label=int(part == "letters")),
        image_shape=(28, 28, 1),
        class_names=tuple(classes),
        tfds="emnist",
    )
    for part, classes in _PARTS.items()
)
