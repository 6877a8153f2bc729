"""smallNORB: stereo pairs of toys in five classes, under known viewpoints and lights.

The images are 48x48, each pixel the mean of 2x2 of the original, rounded; the two of a stereo pair
are the two channels. The order is that of the official files, of 24,300 pairs each. They are read
as they are: tensorflow-datasets' own form keeps the two images of a pair apart, at 96x96, and takes
TensorFlow to be made.

Reference:
    G. E. Hinton, S. Sabour, N. Frosst, "Matrix capsules with EM routing", ICLR 2018, on its
    experiments (48x48) and on novel viewpoints (training on a third, tests on the others of the
    official test set, of networks that are alike on the familiar viewpoints there).
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.data.dataset import Split
from train.data.formats import norb_matrix
from train.data.official import OfficialFile, Source
from train.system.errors import UserError

_URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
_CONTENT = {"dat": "images", "cat": "classes", "info": "viewpoints"}

ELEVATION, AZIMUTH = 1, 2
"""Columns of the official `info` files: instance, elevation, azimuth, lighting."""
FAMILIAR = {
    AZIMUTH: (0, 2, 4, 30, 32, 34),  # 0, 20, 40, 300, 320 and 340 degrees, in tens of degrees
    ELEVATION: (0, 1, 2),  # 30, 35 and 40 degrees, the three lowest of nine
}
"""Codes in these columns of the viewpoints that training is limited to."""


def _read(*paths: Path, limited: int | None, familiar: bool) -> tuple[Split, Split]:
    """Reads images, classes and viewpoints for training and for the test; `_split` has the rest."""
    return _split(paths[:3], limited, True), _split(paths[3:], limited, familiar)


def _split(paths: Sequence[Path], limited: int | None, familiar: bool) -> Split:
    """Limits the images to viewpoints that are familiar in a column, or to all others, if any."""
    dat, cat, info = paths
    labels = norb_matrix.read(cat, dtype=np.int32, ndim=1)
    viewpoints = norb_matrix.read(info, dtype=np.int32, ndim=2)
    pairs = norb_matrix.read(dat, dtype=np.uint8, ndim=4)
    if not len(labels) == len(viewpoints) == len(pairs) or viewpoints.shape[1] != 4:
        raise UserError(
            f"{dat} has {len(pairs)} pairs of images, but {cat} has {len(labels)} labels and "
            f"{info} viewpoints of the shape {list(viewpoints.shape)}: take all three from the "
            "same part of smallNORB."
        )
    if pairs.shape[1] != 2 or pairs.shape[2] % 2 or pairs.shape[3] % 2:
        raise UserError(
            f"{dat} holds images of the shape {list(pairs.shape[1:])}, but stereo pairs with "
            "even sides were expected: check that the files have not been swapped."
        )
    if limited is not None:
        chosen = np.isin(viewpoints[:, limited], FAMILIAR[limited]) == familiar
        pairs, labels = pairs[chosen], labels[chosen]
    # Each pixel is the mean of 2x2, halves rounded up.
    total = pairs[..., ::2, ::2].astype(np.uint16)
    for down, right in ((0, 1), (1, 0), (1, 1)):
        total += pairs[..., down::2, right::2]
    halved = ((total + 2) // 4).astype(np.uint8)
    return Split(np.moveaxis(halved, 1, -1).copy(), labels)


def _files(part: str, stem: str, **fingerprints: tuple[int, str]) -> list[OfficialFile]:
    """The files of the training or the testing part."""
    return [
        OfficialFile(
            name := f"smallnorb-{stem}-{part}-{kind}.mat.gz",
            _URL + name,
            f"the {part} {_CONTENT[kind]} of smallNORB",
            *fingerprint,
            unpacked=name.removesuffix(".gz"),
        )
        for kind, fingerprint in fingerprints.items()
    ]


FILES = (
    *_files(
        "training",
        "5x46789x9x18x6x2x96x96",
        dat=(131896188, "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873"),
        cat=(348, "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa"),
        info=(71052, "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32"),
    ),
    *_files(
        "testing",
        "5x01235x9x18x6x2x96x96",
        dat=(130799817, "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474"),
        cat=(347, "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff"),
        info=(10428, "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2"),
    ),
)


def _source(name: str, limited: int | None = None, *, familiar: bool = False) -> Source:
    return Source(
        name=name,
        files=FILES,
        read=functools.partial(_read, limited=limited, familiar=familiar),
        image_shape=(48, 48, 2),
        class_names=("four-legged animals", "human figures", "airplanes", "trucks", "cars"),
        tfds="smallnorb",
    )


SOURCES = (
    _source("smallnorb"),
    _source("smallnorb-azimuth", AZIMUTH),
    _source("smallnorb-azimuth-familiar", AZIMUTH, familiar=True),
    _source("smallnorb-elevation", ELEVATION),
    _source("smallnorb-elevation-familiar", ELEVATION, familiar=True),
)
"""The standard split; those of novel viewpoints, and with the same training images the familiar."""
