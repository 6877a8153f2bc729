"""What a data set is to the rest of the program: two splits of images with labels, in memory."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from train.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in the order of the data set's official files.

    Attributes:
        images: uint8 [n, height, width, channels], 0 to 255.
        labels: int32 [n], the index of each image's class.

    Raises:
        UserError: if a dtype or a shape is another, the lengths differ, or there is no example.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        """Refuses arrays that are not what the attributes say."""
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise UserError(
                f"images are {_describe(self.images)}, but must be uint8 "
                "[n, height, width, channels]: convert them before building the split."
            )
        if self.labels.dtype != np.int32 or self.labels.ndim != 1:
            raise UserError(
                f"labels are {_describe(self.labels)}, but must be int32 [n]: "
                "convert them before building the split."
            )
        if len(self.images) != len(self.labels):
            raise UserError(
                f"there are {len(self.images)} images but {len(self.labels)} labels: "
                "take both from the same split of the same data set."
            )
        if not self.images.size:
            raise UserError(
                f"images are {_describe(self.images)}, which holds no pixel: "
                "a split needs at least one example."
            )

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def first(self, count: int) -> "Split":
        """The first examples alone, in the order of the files.

        Raises:
            UserError: if there are not as many.
        """
        if not 1 <= count <= len(self):
            raise UserError(
                f"--train-examples is {count}, but there are {len(self)} training images: choose "
                f"1 to {len(self)}."
            )
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set with a training and a test split.

    Attributes:
        name: what `load_dataset` calls it.
        train: the training split.
        test: the test split, with images of the same shape.
        class_names: one readable name per class; label `i` is `class_names[i]`.

    Raises:
        UserError: if a label is not in [0, num_classes) or the splits' image shapes differ.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuses splits that do not fit each other or the classes."""
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise UserError(
                f"{self.name} has training images of shape {self.train.images.shape[1:]} but test "
                f"images of shape {self.test.images.shape[1:]}: both splits need the same shape."
            )
        for split_name, split in (("training", self.train), ("test", self.test)):
            wrong = (split.labels < 0) | (split.labels >= self.num_classes)
            if wrong.any():
                position = int(wrong.argmax())
                raise UserError(
                    f"label {split.labels[position]} of {split_name} example {position} of "
                    f"{self.name} is out of range: with {self.num_classes} classes, labels go from "
                    f"0 to {self.num_classes - 1}; check that the label file belongs to this set."
                )

    def with_first(self, count: int) -> "Dataset":
        """The same with the first so many training examples alone; see `Split.first`."""
        return dataclasses.replace(self, train=self.train.first(count))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image: (height, width, channels)."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
