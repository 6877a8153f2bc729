"""MNIST and the sets published in its format: one entry of a table each.

A set is read from tensorflow-datasets' cache, where it is prepared once, without TensorFlow, from
the official IDX files. Where tensorflow-datasets is not installed, the same files are read
directly. Either way gives the same arrays in the same order.
"""

import importlib.util
from pathlib import Path

from train.data.dataset import Dataset
from train.data.sources.idx_source import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Fingerprint,
    IdxSource,
)
from train.data.sources.official import cache_folder
from train.system.errors import UserError

# LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
MNIST = IdxSource(
    name="mnist",
    url="https://storage.googleapis.com/cvdf-datasets/mnist/",
    class_names=tuple("0123456789"),
    fingerprints={
        TRAIN_IMAGES: Fingerprint(
            9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        TRAIN_LABELS: Fingerprint(
            28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        TEST_IMAGES: Fingerprint(
            1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        TEST_LABELS: Fingerprint(
            4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
)

# Xiao, Rasul and Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
FASHION_MNIST = IdxSource(
    name="fashion_mnist",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    fingerprints={
        TRAIN_IMAGES: Fingerprint(
            26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        TRAIN_LABELS: Fingerprint(
            29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        TEST_IMAGES: Fingerprint(
            4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        TEST_LABELS: Fingerprint(
            5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
)

# Clanuwat et al., "Deep Learning for Classical Japanese Literature", 2018, arXiv:1812.01718.
KMNIST = IdxSource(
    name="kmnist",
    url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    fingerprints={
        TRAIN_IMAGES: Fingerprint(
            18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"
        ),
        TRAIN_LABELS: Fingerprint(
            29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"
        ),
        TEST_IMAGES: Fingerprint(
            3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"
        ),
        TEST_LABELS: Fingerprint(
            5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"
        ),
    },
)

SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST, KMNIST)}


def load(
    source: IdxSource,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Loads a set in MNIST's format, preparing it in the cache the first time.

    Args:
        source: the set.
        data_dir: a folder with the four official files; without it they are downloaded. Where the
            set is in the cache, which holds the same images, the files are verified all the same.
        cache_dir: tensorflow-datasets' folder of prepared data; see `cache_folder`.

    Returns:
        The data set, in the order of the official files.

    Raises:
        UserError: if a file is missing, wrong or corrupted, there are no files and no network, or
            the cache cannot be written or read.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        if data_dir is None:
            raise UserError(
                f"{source.name} comes through tensorflow-datasets, which is not installed: install "
                "the project's `train` extra, or name a folder with the four official IDX files "
                "with --data-dir."
            )
        return source.read(source.find(data_dir))

    from train.data.formats import tfds_cache

    cache = cache_folder(cache_dir)
    if tfds_cache.is_prepared(source, cache):
        if data_dir is not None:
            source.find(data_dir)
    else:
        tfds_cache.prepare(source, cache, data_dir=data_dir)
    return tfds_cache.read(source, cache)


def is_prepared(source: IdxSource, *, cache_dir: str | Path | None = None) -> bool:
    """Whether `load` finds the set in the cache, and so needs neither files nor a network."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        return False

    from train.data.formats import tfds_cache

    return tfds_cache.is_prepared(source, cache_folder(cache_dir))
