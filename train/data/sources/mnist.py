"""MNIST and the sets published in its format: four IDX files each."""

import gzip
from pathlib import Path

import numpy as np

from train.data.dataset import Split
from train.data.official import OfficialFile, Source
from train.system.files import reading

_CONTENT = {
    "train-images-idx3-ubyte.gz": "the training images",
    "train-labels-idx1-ubyte.gz": "the training labels",
    "t10k-images-idx3-ubyte.gz": "the test images",
    "t10k-labels-idx1-ubyte.gz": "the test labels",
}


def _read(*paths: Path) -> tuple[Split, Split]:
    return _split(*paths[:2]), _split(*paths[2:])


def _split(images: Path, labels: Path) -> Split:
    return Split(_read_idx(images, ndim=3)[..., None], _read_idx(labels, ndim=1).astype(np.int32))


def _read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """Reads a file in the IDX format, packed or not."""
    with reading(path, "bytes in the IDX format", "get the file again"):
        content = path.read_bytes()
        return parse_idx(gzip.decompress(content) if path.suffix == ".gz" else content, ndim=ndim)


def parse_idx(content: bytes, *, ndim: int) -> np.ndarray:
    """Bytes in the IDX format: a magic number, `ndim` sizes, the last dimension fastest.

    Raises:
        ValueError: if they are not.
    """
    if content[:4] != bytes([0, 0, 8, ndim]):
        raise ValueError(f"it begins with {content[:4].hex(' ')}")
    shape = np.frombuffer(content, ">u4", ndim, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def _source(
    name: str,
    url: str,
    *fingerprints: tuple[int, str],
    class_names: tuple[str, ...],
    licence: str = "not stated",
) -> Source:
    """A set in four gzipped IDX files: the folder of the files, their sizes and checksums."""
    files = (
        OfficialFile(
            file, url + file, f"{content} of {name}", *fingerprint, file.removesuffix(".gz")
        )
        for (file, content), fingerprint in zip(_CONTENT.items(), fingerprints, strict=True)
    )
    return Source(
        name, tuple(files), _read, (28, 28, 1), class_names, licence=licence, is_prepared=True
    )


# LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
MNIST = _source(
    "mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    class_names=tuple("0123456789"),
)

_CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"

# Xiao, Rasul and Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
FASHION_MNIST = _source(
    "fashion_mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    class_names=tuple(_CLOTHES.split(", ")),
    licence="MIT",
)

# Clanuwat et al., "Deep Learning for Classical Japanese Literature", 2018, arXiv:1812.01718.
KMNIST = _source(
    "kmnist",
    "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
    (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
    (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
    (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    licence="CC BY-SA 4.0",
)

SOURCES = (MNIST, FASHION_MNIST, KMNIST)
