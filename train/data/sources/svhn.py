"""Street View House Numbers, cropped to 32x32: the digit in the middle is the class.

It is read from its two official files as they are. tensorflow-datasets' own form has a third split,
`extra` (531,131 images, 1.3 GB), without which it would not be what stock tensorflow-datasets
expects to find; the papers here train without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats import mat5
from train.data.sources.official import Fingerprint, OfficialFile
from train.system.errors import UserError

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"

_URL = "http://ufldl.stanford.edu/housenumbers/"
_LABEL_OF_ZERO = 10

FILES = (
    OfficialFile(
        name=TRAIN,
        url=_URL + TRAIN,
        content="the training images and labels of SVHN",
        fingerprint=Fingerprint(
            182040794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
        ),
    ),
    OfficialFile(
        name=TEST,
        url=_URL + TEST,
        content="the test images and labels of SVHN",
        fingerprint=Fingerprint(
            64275384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
        ),
    ),
)


@dataclass(frozen=True)
class Svhn:
    """SVHN in its cropped form: 73,257 training and 26,032 test images, 32x32 in colour.

    In the official files the digit 0 has the label 10; here it has 0.

    Attributes:
        files: the official files.

    Reference:
        Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
        NIPS workshop 2011.
    """

    files: tuple[OfficialFile, ...] = FILES
    name: str = "svhn_cropped"
    tfds_name: str = "svhn_cropped"
    image_shape: tuple[int, int, int] = (32, 32, 3)
    class_names: tuple[str, ...] = tuple("0123456789")

    def read(self, paths: Mapping[str, Path]) -> Dataset:
        """Reads the files.

        Raises:
            UserError: if one is not sound.
        """
        return Dataset(self.name, _read(paths[TRAIN]), _read(paths[TEST]), self.class_names)


def _read(path: Path) -> Split:
    arrays = mat5.read(path, ("X", "y"))
    images, labels = arrays["X"], arrays["y"].ravel()
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{path} holds X as {images.dtype} {list(images.shape)}, but uint8 "
            "[height, width, channels, n] was expected: check that it is a file of 32x32 images."
        )
    wrong = ~np.isin(labels, np.arange(1, _LABEL_OF_ZERO + 1))
    if wrong.any():
        raise UserError(
            f"{path} has the label {labels[wrong][0]} in y, but labels go from 1 to "
            f"{_LABEL_OF_ZERO}, which stands for 0: check that it is a file of 32x32 images."
        )
    return Split(
        np.ascontiguousarray(np.moveaxis(images, -1, 0)),
        (labels % _LABEL_OF_ZERO).astype(np.int32),
    )


SVHN = Svhn()
