"""Data of the user's own, as NumPy arrays in one `.npz` file."""

from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats import numpy_files
from train.system.errors import UserError

NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"),
    ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"),
)
"""Names of the arrays, the last two may be missing; the second row is that of Keras' files."""


def load(path: Path, *, name: str) -> Dataset:
    """Loads the arrays of a file, which `numpy.savez` or `numpy.savez_compressed` has written.

    The file holds training and test images, and may hold validation images, uint8 `[n, height,
    width]` or `[n, height, width, channels]`, and their labels, integers from 0 on, `[n]` or
    `[n, 1]`, under one row of `NAMES`. There are as many classes as the largest label tells, and
    their names are the numbers.

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
    if not set(names) <= set(present):
        names = names[:4]
    arrays = numpy_files.read_members(path, [f"{name}.npy" for name in names])
    train, *others = (
        _split(path, names[i : i + 2], *arrays[i : i + 2]) for i in range(0, len(names), 2)
    )
    for split in others:
        if unknown := sorted(set(split.labels.tolist()) - set(train.labels.tolist())):
            kind = "test" if split is others[0] else "validation"
            raise UserError(
                f"{path} has {kind} images of class {', '.join(map(str, unknown[:5]))}, of which "
                "it has no training image."
            )
    classes = 1 + int(train.labels.max())
    if classes > len(train):
        raise UserError(
            f"{path} has the label {classes - 1}, but only {len(train)} training images: number "
            "the classes from 0 on."
        )
    return Dataset(name, train, others[0], tuple(map(str, range(classes))), *others[1:])


def _split(path: Path, names: tuple[str, ...], images: np.ndarray, labels: np.ndarray) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(
            f"{path} holds {names[0]} as {images.dtype} {list(images.shape)}: save them as uint8, "
            "0 to 255, [n, height, width] or [n, height, width, channels]."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(
            f"{path} holds {names[1]} as {labels.dtype} {list(labels.shape)}: save them as "
            "integers [n], the number of each image's class."
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < 2**31:
        raise UserError(
            f"{path} has labels from {labels.min()} to {labels.max()} in {names[1]}: number the "
            "classes from 0 on."
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    return Split(np.ascontiguousarray(images), labels.astype(np.int32))
