"""MNIST and the sets published alike: images and labels for training and for the test."""

import functools
import gzip
import hashlib
from pathlib import Path

import numpy as np

from train.data.dataset import Split
from train.data.formats import numpy_files
from train.data.official import OfficialFile, Source
from train.system.errors import UserError
from train.system.files import reading

_CODES = {"u1": 8, ">i4": 12}
"""The third byte of a file in the IDX format, by the kind of its numbers."""

_CONTENT = {
    "train-images-idx3-ubyte.gz": "the training images",
    "train-labels-idx1-ubyte.gz": "the training labels",
    "t10k-images-idx3-ubyte.gz": "the test images",
    "t10k-labels-idx1-ubyte.gz": "the test labels",
}
_OF_EACH = ("imgs", "labels")


_TEST_PIXELS = {
    "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161": "mnist",
    "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a": "fashion_mnist",
}
"""The sets of test images, by the SHA-256 of the pixels in the official files."""


def _read(*paths: Path, name: str) -> tuple[Split, Split]:
    train, test = _split(*paths[:2]), _split(*paths[2:])
    # Files of all sets have the same names, and of what is unpacked no checksum is published.
    found = _TEST_PIXELS.get(hashlib.sha256(test.images.tobytes()).hexdigest(), name)
    if found != name:
        raise UserError(
            f"{paths[2]} holds the test images of {found} and not of {name}: choose --dataset "
            f"{found}, or name another folder with --data-dir."
        )
    return train, test


def _split(images: Path, labels: Path) -> Split:
    return Split(read_array(images, ndim=3)[..., None], read_array(labels, ndim=1).astype(np.int32))


def read_array(path: Path, *, ndim: int, dtype: str = "u1") -> np.ndarray:
    """Reads a file in the IDX format, packed or not, or an `.npz` file of one array.

    Raises:
        UserError: if it is missing or damaged, or holds an array of another kind.
    """
    if path.suffix == ".npz":
        (array,) = numpy_files.read_members(path, ["arr_0.npy"])
        if (array.ndim, array.dtype) != (ndim, np.dtype(dtype)):
            raise UserError(
                f"{path} holds {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} of "
                f"{ndim} axes: get it again."
            )
        return array
    with reading(path, "bytes in the IDX format", "get the file again"):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        return parse_idx(content, ndim=ndim, dtype=dtype)


def parse_idx(content: bytes, *, ndim: int, dtype: str = "u1") -> np.ndarray:
    """Bytes in the IDX format: a magic number, `ndim` sizes, the last dimension fastest.

    The numbers are bytes, `"u1"`, or integers of four bytes, `">i4"`.

    Raises:
        ValueError: if they are not.
    """
    if content[:4] != bytes([0, 0, _CODES[dtype], ndim]):
        raise ValueError(f"it begins with {content[:4].hex(' ')}")
    shape = np.frombuffer(content, ">u4", ndim, offset=4)
    return np.frombuffer(content, dtype, offset=4 + 4 * ndim).reshape(shape)


def _for_numpy(name: str) -> tuple[str, ...]:
    """The names of four files of CODH, in the order of `_CONTENT`."""
    return tuple(f"{name}-{part}-{what}.npz" for part in ("train", "test") for what in _OF_EACH)


def _source(
    name: str,
    url: str,
    *fingerprints: tuple[int, str],
    class_names: tuple[str, ...],
    licence: str = "not stated",
    others: tuple[str, ...] = (),
) -> Source:
    """A set in four gzipped IDX files: the folder of the files, their sizes and checksums.

    Others are the names of files there that hold the same arrays, for NumPy.
    """
    files = []
    for number, (file, what) in enumerate(_CONTENT.items()):
        content, unpacked = f"{what} of {name}", file.removesuffix(".gz")
        other = OfficialFile(others[number], url + others[number], content) if others else None
        size, checksum = fingerprints[number]
        files.append(OfficialFile(file, url + file, content, size, checksum, unpacked, other))
    read = functools.partial(_read, name=name)
    return Source(
        name, tuple(files), read, (28, 28, 1), class_names, licence=licence, is_prepared=True
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
    others=_for_numpy("kmnist"),
)

_HIRAGANA = (
    "a i u e o ka ki ku ke ko sa shi su se so ta chi tsu te to na ni nu ne no ha hi fu he ho "
    "ma mi mu me mo ya yu yo ra ri ru re ro wa wi we wo n iteration"
)

# The same, section 3.2: all hiragana and the iteration mark, of each up to 7,000 images.
KUZUSHIJI_49 = Source(
    "kuzushiji49",
    tuple(
        OfficialFile(
            name,
            f"http://codh.rois.ac.jp/kmnist/dataset/k49/{name}",
            f"{content} of Kuzushiji-49",
            checksum=md5,
        )
        for name, content, md5 in zip(
            _for_numpy("k49"),
            _CONTENT.values(),
            (
                "7ac088b20481cf51dcd01ceaab89d821",
                "44a8e1b893f81e63ff38d73cad420f7a",
                "d352e201d846ce6b94f42c990966f374",
                "4da6f7a62e67a832d5eb1bd85c5ee448",
            ),
            strict=True,
        )
    ),
    functools.partial(_read, name="kuzushiji49"),
    (28, 28, 1),
    tuple(_HIRAGANA.split()),
    licence="CC BY-SA 4.0",
)

SOURCES = (MNIST, FASHION_MNIST, KMNIST, KUZUSHIJI_49)
