"""QMNIST: MNIST made anew from NIST's files, with the 50,000 test digits that were lost.

C. Yadav and L. Bottou, "Cold Case: The Lost MNIST Digits", 2019, arXiv:1905.10498. The training
images are MNIST's, up to a pixel here and there. The first 10,000 of the 60,000 test images are
MNIST's test images, the others had never been published. Of what is known of an image, eight
integers, the class is the first.
"""

import functools
from pathlib import Path

import numpy as np

from train.data.dataset import Split
from train.data.official import OfficialFile, Source
from train.data.sources.mnist import read_array

_OF_MNIST = 10_000
"""The test images that are MNIST's."""

_FILES = tuple(
    OfficialFile(
        name,
        f"https://raw.githubusercontent.com/facebookresearch/qmnist/master/{name}",
        f"{content} of QMNIST",
        checksum=md5,
        unpacked=name.removesuffix(".gz"),
    )
    for name, content, md5 in (
        (
            "qmnist-train-images-idx3-ubyte.gz",
            "the training images",
            "ed72d4157d28c017586c42bc6afe6370",
        ),
        (
            "qmnist-train-labels-idx2-int.gz",
            "the training labels",
            "0058f8dd561b90ffdd0f734c6a30e5e4",
        ),
        (
            "qmnist-test-images-idx3-ubyte.gz",
            "the test images",
            "1394631089c404de565df7b7aeaf9412",
        ),
        (
            "qmnist-test-labels-idx2-int.gz",
            "the test labels",
            "5b5b05890a5e13444e108efe57b788aa",
        ),
    )
)


def read(
    images: Path, labels: Path, test_images: Path, test_labels: Path, *, tested: slice
) -> tuple[Split, Split]:
    """Reads the four files; of the test images those that are asked for.

    Raises:
        UserError: if a file is missing or damaged.
    """
    return _split(images, labels), _split(test_images, test_labels, tested)


def _split(images: Path, labels: Path, part: slice = slice(None)) -> Split:
    classes = read_array(labels, ndim=2, dtype=">i4")[:, 0].astype(np.int32)
    return Split(read_array(images, ndim=3)[..., None][part], classes[part])


SOURCES = tuple(
    Source(
        name=name,
        files=_FILES,
        read=functools.partial(read, tested=tested),
        image_shape=(28, 28, 1),
        class_names=tuple("0123456789"),
        licence="BSD-style",
        tfds="qmnist",
    )
    for name, tested in (
        ("qmnist", slice(None)),
        ("qmnist-10k", slice(_OF_MNIST)),
        ("qmnist-50k", slice(_OF_MNIST, None)),
    )
)
