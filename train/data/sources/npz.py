"""Data of the user's own, as NumPy arrays in one `.npz` file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats import numpy_files
from train.data.formats.images import tell_of_dark
from train.system.errors import UserError

NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"),
    ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"),
)
"""Names of the arrays, the last two may be missing; the second row is that of Keras' files."""

CLASS_NAMES = "class_names"
"""Name of an array of strings that may be there, too."""

AXES = ("NHWC", "NCHW")
"""Orders that the axes of images may have: number, height, width and channels."""

VALUES = "values"
_MOST_CHANNELS = 4


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the arrays of a file are to be understood, where that is not as `load` says.

    Attributes:
        axes: one of `AXES`.
        labels: the number of the first class; or "values", if each value that occurs is a class.

    Raises:
        UserError: if `labels` is neither.
    """

    axes: str | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        known = self.labels in (None, VALUES)
        if not known and not (self.labels or "").removeprefix("-").isdecimal():
            raise UserError(
                f"--labels-from is {self.labels}, but must be the number of the first class, or "
                f"{VALUES}."
            )


AS_WRITTEN = Layout()


def load(path: Path, *, name: str, layout: Layout = AS_WRITTEN) -> Dataset:
    """Loads the arrays of a file, which `numpy.savez` or `numpy.savez_compressed` has written.

    The file holds training and test images, and may hold validation images, uint8 `[n, height,
    width]` or `[n, height, width, channels]`, and their labels, integers, `[n]` or `[n, 1]`, under
    one row of `NAMES`; or `[n, classes]` of 0 and 1, where each class may be present or not. The
    classes are numbered from 0 on, and their names are the numbers, or the
    strings `[classes]` in the array `class_names`.

    What looks like something else, and would be trained on without a word, is refused until the
    layout says what it is: images with more than 4 channels in the last axis, and numbers of
    classes with a gap. Classes of which there is no training image are taken where the file says
    that they are there: by a name in `class_names`, or by a column of labels `[n, classes]`.

    Labels `[n]` may be the numbers from another one on, `Layout(labels="1")`, or any numbers at
    all, `Layout(labels="values")`, which are the names of the classes then; `class_names`, as many,
    are of the numbers in ascending order.

    Raises:
        UserError: if the file is missing or damaged, or does not hold what it should.
    """
    present = [member.removesuffix(".npy") for member in numpy_files.members(path)]
    names: tuple[str, ...] | None = next(
        (names for names in NAMES if set(names[:4]) <= set(present)), None
    )
    if names is None:
        wanted = ", or ".join(", ".join(names[:4]) for names in NAMES)
        raise UserError(
            f"{path} holds {', '.join(map(repr, sorted(present)[:8])) or 'nothing'}: save the "
            f"arrays {wanted} with numpy.savez."
        )
    if len(half := set(names[4:]) & set(present)) == 1:
        (missing,) = set(names[4:]) - half
        raise UserError(f"{path} holds {half.pop()}, but not {missing}: save both or neither.")
    if not set(names) <= set(present):
        names = names[:4]
    more = [CLASS_NAMES] if CLASS_NAMES in present else []
    arrays = numpy_files.read_members(path, [f"{name}.npy" for name in (*names, *more)])
    own_names = _class_names(path, arrays.pop()) if more else None
    images = [
        _images(path, of, array, layout.axes)
        for of, array in zip(names[::2], arrays[::2], strict=True)
    ]
    for of, some in zip(names[::2], images, strict=True):
        if len(some):
            tell_of_dark(f"{of} in {path}", int(some.max()))
    labels = [_labels(path, of, array) for of, array in zip(names[1::2], arrays[1::2], strict=True)]
    if labels[0].ndim == 2:
        if layout.labels is not None:
            raise UserError(
                f"--labels-from is {layout.labels}, but {path} has labels "
                f"[n, {labels[0].shape[1]}], which number no classes: leave it out."
            )
        class_names, labels = _present(path, labels, own_names)
    else:
        for kind, of_split in zip(("test", "validation"), labels[1:], strict=False):
            if of_split.ndim != 1:
                raise UserError(
                    f"{path} has the number of a class for each training image, but {kind} labels "
                    f"[n, {of_split.shape[1]}]: save labels of one kind for all images."
                )
            if unknown := sorted(set(of_split.tolist()) - set(labels[0].tolist())):
                raise UserError(
                    f"{path} has {kind} images of class {', '.join(map(str, unknown[:5]))}, of "
                    "which it has no training image."
                )
        class_names, labels = _numbered(path, labels, own_names, layout.labels)
    train, *others = (Split(*both) for both in zip(images, labels, strict=True))
    dataset = Dataset(name, train, others[0], tuple(class_names), *others[1:])
    dataset.tell_of_copies()
    return dataset


def _images(path: Path, name: str, images: np.ndarray, axes: str | None) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(
            f"{path} holds {name} as {images.dtype} {list(images.shape)}: save them as uint8, "
            "0 to 255, [n, height, width] or [n, height, width, channels]."
        )
    if images.ndim == 3:
        return np.ascontiguousarray(images[..., np.newaxis])
    if axes == "NCHW":
        images = np.moveaxis(images, 1, -1)
    elif axes is None and images.shape[-1] > _MOST_CHANNELS:
        first = images.shape[1] <= _MOST_CHANNELS
        raise UserError(
            f"{path} holds {name} as {list(images.shape)}, which as [n, height, width, channels] "
            f"are images of {images.shape[-1]} channels: if "
            + (
                "the channels come first, say so with --image-axes NCHW"
                if first
                else "these are scans of three dimensions, save a slice of each"
            )
            + "; if they have so many channels, with --image-axes NHWC."
        )
    return np.ascontiguousarray(images)


def _labels(path: Path, name: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    of_each = labels.ndim == 2 and np.isin(labels, (0, 1)).all()
    if labels.dtype.kind not in "biu" or not (labels.ndim == 1 or of_each):
        raise UserError(
            f"{path} holds {name} as {labels.dtype} {list(labels.shape)}: save them as "
            "integers [n], the number of each image's class, or as [n, classes] of 0 and 1."
        )
    return labels


def _present(
    path: Path, labels: Sequence[np.ndarray], names: Sequence[str] | None
) -> tuple[Sequence[str], list[np.ndarray]]:
    """Names of classes, and which of them are present; the one that is, where it is always one."""
    count = labels[0].shape[1]
    if any(of.shape[1:] != (count,) for of in labels) or len(names or range(count)) != count:
        raise UserError(
            f"{path} has labels of {count} classes for training, but others elsewhere: save labels "
            f"[n, {count}] for all images, and as many {CLASS_NAMES}, if any."
        )
    if all((of.sum(axis=1) == 1).all() for of in labels):
        labels = [of.argmax(axis=1).astype(np.int32) for of in labels]
    else:
        labels = [of.astype(bool) for of in labels]
    return names or [str(number) for number in range(count)], list(labels)


def _class_names(path: Path, names: np.ndarray) -> list[str]:
    found = [str(name) for name in names.ravel()]
    if names.dtype.kind != "U" or len(set(found)) < len(found):
        raise UserError(
            f"{path} holds {CLASS_NAMES} as {names.dtype} {list(names.shape)}: save them as "
            "strings, each another one."
        )
    return found


def _numbered(
    path: Path, labels: Sequence[np.ndarray], names: Sequence[str] | None, first: str | None
) -> tuple[Sequence[str], list[np.ndarray]]:
    """The names of the classes, and the labels int32 as their numbers from 0 on."""
    values = np.unique(labels[0]) if labels[0].size else np.zeros(1, np.int64)
    if first == VALUES:
        if names is not None and len(names) != len(values):
            raise UserError(
                f"{path} has {len(names)} {CLASS_NAMES}, but labels of {len(values)} values: leave "
                "--labels-from values out, or save as many names."
            )
        numbered = [np.searchsorted(values, of).astype(np.int32) for of in labels]
        return names or [str(value) for value in values], numbered
    start = int(first or 0)
    count = int(values[-1]) - start + 1 if names is None else len(names)
    expected = range(start, start + count)
    outside = [int(value) for value in values if int(value) not in expected]
    missing = 0 if names is not None else count - len(values)
    if outside or missing > 0:
        begins = f" as the numbers from {values[0]} on (--labels-from {values[0]}), or"
        as_they_are = "as they are, one class for each value (--labels-from values)"
        gapless = int(values[-1]) - int(values[0]) + 1 == len(values)
        raise UserError(
            f"{path} has training labels from {values[0]} to {values[-1]}, {len(values)} different "
            f"ones, where classes are numbered from {start} on without a gap: take them"
            f"{begins if gapless else ''} {as_they_are}."
        )
    return names or [str(label) for label in expected], [
        (of.astype(np.int64) - start).astype(np.int32) for of in labels
    ]
