"""smallNORB: stereo pairs of toys in five classes, under known viewpoints and lights.

It is read from its six official files as they are. tensorflow-datasets' own form keeps the two
images of a pair apart, at 96x96, and takes TensorFlow to be made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats import norb_matrix
from train.data.sources.official import Fingerprint, OfficialFile
from train.system.errors import UserError

_URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
_STEMS = {
    "training": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "testing": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
_CONTENT = {"dat": "images", "cat": "classes", "info": "viewpoints"}

_FINGERPRINTS = {
    ("training", "dat"): Fingerprint(
        131896188, "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873"
    ),
    ("training", "cat"): Fingerprint(
        348, "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa"
    ),
    ("training", "info"): Fingerprint(
        71052, "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32"
    ),
    ("testing", "dat"): Fingerprint(
        130799817, "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474"
    ),
    ("testing", "cat"): Fingerprint(
        347, "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff"
    ),
    ("testing", "info"): Fingerprint(
        10428, "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2"
    ),
}


def file_name(part: str, kind: str) -> str:
    """The name of an official file.

    Args:
        part: "training" or "testing".
        kind: "dat" (images), "cat" (classes) or "info" (viewpoints).
    """
    return f"{_STEMS[part]}-{kind}.mat.gz"


FILES = tuple(
    OfficialFile(
        name=file_name(part, kind),
        url=_URL + file_name(part, kind),
        content=f"the {part} {_CONTENT[kind]} of smallNORB",
        fingerprint=fingerprint,
        unpacked=file_name(part, kind).removesuffix(".gz"),
    )
    for (part, kind), fingerprint in _FINGERPRINTS.items()
)


@dataclass(frozen=True)
class Viewpoints:
    """The viewpoints that training is limited to.

    Attributes:
        column: of the official `info` files (instance, elevation, azimuth, lighting).
        codes: the values there that training sees.
    """

    column: int
    codes: tuple[int, ...]

    def contain(self, info: np.ndarray) -> np.ndarray:
        """Marks the examples seen from there: info int32 `[n, 4]` -> bool `[n]`."""
        return np.isin(info[:, self.column], self.codes)


AZIMUTHS = Viewpoints(column=2, codes=(0, 2, 4, 30, 32, 34))
"""0, 20, 40, 300, 320 and 340 degrees; the official files give tens of degrees."""
ELEVATIONS = Viewpoints(column=1, codes=(0, 1, 2))
"""30, 35 and 40 degrees, the three lowest of nine."""


@dataclass(frozen=True)
class SmallNorb:
    """smallNORB, or the part of it that tells how a network does from other viewpoints.

    The images are 48x48, each pixel the mean of 2x2 of the original, rounded; the two of a stereo
    pair are the two channels. The order is that of the official files, of 24,300 pairs each.

    Attributes:
        name: what `load_dataset` calls it.
        viewpoints: those that training is limited to; None for the standard split.
        familiar: whether the test images are those from the viewpoints that training sees, too, or
            those from all others.
        files: the official files.

    Reference:
        G. E. Hinton, S. Sabour, N. Frosst, "Matrix capsules with EM routing", ICLR 2018, on its
        experiments (48x48) and on novel viewpoints (training on a third, tests on the others of the
        official test set, of networks that are alike on the familiar viewpoints there).
    """

    name: str
    viewpoints: Viewpoints | None = None
    familiar: bool = False
    files: tuple[OfficialFile, ...] = FILES
    tfds_name: str = "smallnorb"
    image_shape: tuple[int, int, int] = (48, 48, 2)
    class_names: tuple[str, ...] = (
        "four-legged animals",
        "human figures",
        "airplanes",
        "trucks",
        "cars",
    )

    def read(self, paths: Mapping[str, Path]) -> Dataset:
        """Reads the files, unpacked or not.

        Raises:
            UserError: if one is not sound, or they do not fit each other.
        """
        return Dataset(
            name=self.name,
            train=self._read_split(paths, "training", seen=True),
            test=self._read_split(paths, "testing", seen=self.familiar),
            class_names=self.class_names,
        )

    def _read_split(self, paths: Mapping[str, Path], part: str, *, seen: bool) -> Split:
        """One of the two official parts, cut to the examples that training sees, or the others."""
        dat, cat, info = (paths[file_name(part, kind)] for kind in _CONTENT)
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
        if self.viewpoints is not None:
            chosen = self.viewpoints.contain(viewpoints) == seen
            pairs, labels = pairs[chosen], labels[chosen]
        return Split(np.moveaxis(halved(pairs), 1, -1).copy(), labels)


def halved(images: np.ndarray) -> np.ndarray:
    """Images of half the size, each pixel the mean of 2x2, halves rounded up.

    Args:
        images: uint8 `[..., height, width]`, of even sides.

    Returns:
        uint8 `[..., height / 2, width / 2]`.
    """
    total = images[..., ::2, ::2].astype(np.uint16)
    for down, right in ((0, 1), (1, 0), (1, 1)):
        total += images[..., down::2, right::2]
    return ((total + 2) // 4).astype(np.uint8)


SOURCES = {
    source.name: source
    for source in (
        SmallNorb("smallnorb"),
        SmallNorb("smallnorb-azimuth", AZIMUTHS),
        SmallNorb("smallnorb-azimuth-familiar", AZIMUTHS, familiar=True),
        SmallNorb("smallnorb-elevation", ELEVATIONS),
        SmallNorb("smallnorb-elevation-familiar", ELEVATIONS, familiar=True),
    )
}
"""The standard split; those of novel viewpoints, and with the same training images the familiar."""
