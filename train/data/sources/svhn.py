"""Street View House Numbers, cropped to 32x32: the digit in the middle is the class.

Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", NIPS
workshop 2011: 73,257 training and 26,032 test images in colour.

It is read from its two official files as they are. tensorflow-datasets' own form has a third split,
`extra` (531,131 images, 1.3 GB), without which it would not be what stock tensorflow-datasets
expects to find; the papers here train without it.
"""

from pathlib import Path

import numpy as np

from train.data.dataset import Split
from train.data.formats import mat
from train.data.official import OfficialFile, Source

_URL = "http://ufldl.stanford.edu/housenumbers/"


def _split(path: Path) -> Split:
    """Reads images and labels of a file, where the digit 0 has the label 10; here it has 0."""
    images, labels = mat.read(path, ("X", "y"))
    images = np.ascontiguousarray(np.moveaxis(images, -1, 0))
    return Split(images, (labels.ravel() % 10).astype(np.int32))


def _file(name: str, content: str, size: int, checksum: str) -> OfficialFile:
    return OfficialFile(
        name, _URL + name, f"the {content} images and labels of SVHN", size, checksum
    )


SVHN = Source(
    name="svhn_cropped",
    files=(
        _file(
            "train_32x32.mat",
            "training",
            182040794,
            "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        _file(
            "test_32x32.mat",
            "test",
            64275384,
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
    read=lambda train, test: (_split(train), _split(test)),
    image_shape=(32, 32, 3),
    class_names=tuple("0123456789"),
)

SOURCES = (SVHN,)
