"""Data sets as the rest of the program sees them: splits of examples, stored or made."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from train.data.balance import of_each_class
from train.system.errors import UserError


class Batch(NamedTuple):
    """Some examples, on the host or on a device.

    Attributes:
        images: uint8 [b, height, width, channels], 0 to 255.
        labels: int32 [b], the class of each image, or [b, k] where an image shows k classes; bool
            [b, classes], which are present, where it shows any number of them.
        parts: uint8 [b, k, height, width, channels], the part of an image that shows each of its k
            classes; None where an image shows one.
    """

    images: Any
    labels: Any
    parts: Any = None

    @property
    def targets(self) -> Any:
        """The images that a decoder is to reconstruct, or their parts."""
        return self.images if self.parts is None else self.parts

    def with_images(self, change: Callable[[Any], Any]) -> "Batch":
        """The batch with its images, and their parts alike, as a function makes them."""
        parts = None if self.parts is None else change(self.parts)
        return self._replace(images=change(self.images), parts=parts)


def classes_of(label: np.ndarray) -> np.ndarray:
    """The numbers of the classes of an image, of its label of any kind (see `Batch`)."""
    return np.flatnonzero(label) if label.dtype == bool else np.atleast_1d(label)


class Examples(Protocol):
    """Examples of a data set by their number, stored or made.

    Attributes:
        block: examples that are shuffled together in training, see `Order`: one of each image that
            is stored.
        labels_per_image: classes that an image shows, k; None for any number.
        source_labels: int32 [n], the labels of the images that are stored, for checks.
        image_shape: `(height, width, channels)`.
        constants: host arrays that `select` takes examples from.
        nbytes: bytes that they take.
        fingerprint: tells examples from others, in hexadecimal digits.
    """

    @property
    def block(self) -> int:
        return len(self.source_labels)

    @property
    def labels_per_image(self) -> int | None:
        return 1

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.constants.values())

    @property
    def fingerprint(self) -> str:
        return digest(*(array.tobytes() for array in self.constants.values()))

    @property
    def source_labels(self) -> np.ndarray: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def constants(self) -> dict[str, np.ndarray]: ...

    def __len__(self) -> int: ...

    def select(self, constants: Mapping[str, jax.Array], indices: jax.Array) -> Batch:
        """Takes examples int32 [b] on a device, of the constants there: pure, to be traced."""
        ...

    def gather(self, indices: np.ndarray) -> Batch:
        """Takes the same examples on the host."""
        ...

    def subset(self, count: int) -> "Examples":
        """Takes so many examples, 1 to all of them.

        Where they are stored, these are the first of each class in its share, see `of_each_class`:
        of a class with hardly any examples there may be none. Where they are made, the first.
        """
        ...

    def some(self, count: int) -> Batch:
        """Takes so many examples, or all if there are fewer, on the host; see `subset`."""
        examples = self.subset(min(count, len(self)))
        return examples.gather(np.arange(len(examples)))

    def in_memory(self) -> "Examples":
        """The same examples, with their `constants`.

        Raises:
            UserError: if they are in files that do not fit in memory, or that are damaged.
        """
        return self

    def take(self, images: np.ndarray) -> "Examples":
        """Takes the examples that are, or are made of, some of the stored images, by number."""
        ...

    def set_aside(self, images: np.ndarray) -> "Examples":
        """The same, as they are measured: where training varies images, in a way of their own."""
        return self.take(images)


def digest(*parts: bytes | str) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of some parts and their lengths."""
    found = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        found.update(len(content).to_bytes(8))
        found.update(content)
    return found.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Split(Examples):
    """Stored images and their labels, in the order of the set's official files.

    Attributes:
        images: uint8 [n, height, width, channels], 0 to 255.
        labels: int32 [n], the index of each image's class; or bool [n, classes], which are present.

    Raises:
        UserError: if a dtype or a shape is another, the lengths differ, or there is no example.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        for name, array, kinds, wanted in (
            ("images", self.images, {("uint8", 4)}, "uint8 [n, height, width, channels]"),
            ("labels", self.labels, {("int32", 1), ("bool", 2)}, "int32 [n] or bool [n, classes]"),
        ):
            if (str(array.dtype), array.ndim) not in kinds:
                raise UserError(
                    f"{name} are {array.dtype} {list(array.shape)}, but must be {wanted}: convert "
                    "them before building the split."
                )
        if len(self.images) != len(self.labels):
            raise UserError(
                f"there are {len(self.images)} images but {len(self.labels)} labels: "
                "take both from the same split of the same data set."
            )
        if not self.images.size:
            raise UserError(
                f"images are uint8 {list(self.images.shape)}, which holds no pixel: "
                "a split needs at least one example."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels_per_image(self) -> int | None:
        return 1 if self.labels.ndim == 1 else None

    @property
    def source_labels(self) -> np.ndarray:
        # Images of any number of classes are in no order of these.
        return self.labels if self.labels.ndim == 1 else np.zeros(len(self), np.int32)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def constants(self) -> dict[str, np.ndarray]:
        return {"images": self.images, "labels": self.labels}

    def select(self, constants: Mapping[str, jax.Array], indices: jax.Array) -> Batch:
        return Batch(
            constants["images"].at[indices].get(mode="promise_in_bounds"),
            constants["labels"].at[indices].get(mode="promise_in_bounds"),
        )

    def gather(self, indices: np.ndarray) -> Batch:
        return Batch(self.images[indices], self.labels[indices])

    def subset(self, count: int) -> "Split":
        return self.take(of_each_class(self.source_labels, count))

    def take(self, images: np.ndarray) -> "Split":
        return Split(self.images[images], self.labels[images])


def stored(examples: Examples) -> Split:
    """Demands examples whose images and labels are in memory, to be used as a whole.

    Raises:
        UserError: if they are more than memory holds, or are made one by one.
    """
    examples = examples.in_memory()
    if isinstance(examples, Split):
        return examples
    raise UserError(
        f"{len(examples)} examples are made one by one, but are needed as a whole: choose a data "
        "set that is stored."
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set with its splits.

    Raises:
        UserError: if there are fewer than two classes, a label is not in [0, num_classes), or the
            splits' image shapes differ.
    """

    name: str  # what `load_dataset` calls it
    train: Examples
    test: Examples
    class_names: tuple[str, ...]  # one readable name per class; label `i` is `class_names[i]`
    validation: Examples | None = None  # to choose by

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise UserError(
                f"{self.name} has the class {' '.join(self.class_names)} alone, which any network "
                "gets right: have two classes at least."
            )
        splits = {"training": self.train, "test": self.test, "validation": self.validation}
        for split_name, split in splits.items():
            if split is None:
                continue
            if split.image_shape != self.image_shape:
                raise UserError(
                    f"{self.name} has training images of shape {self.image_shape} but "
                    f"{split_name} images of shape {split.image_shape}: all splits need the same "
                    "shape."
                )
            labels = split.source_labels
            wrong = (labels < 0) | (labels >= self.num_classes)
            if wrong.any():
                position = int(wrong.argmax())
                raise UserError(
                    f"label {labels[position]} of {split_name} example {position} of "
                    f"{self.name} is out of range: with {self.num_classes} classes, labels go from "
                    f"0 to {self.num_classes - 1}; check that the label file belongs to this set."
                )

    def limited(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """Takes a subset of the examples of each split, see `Examples.subset`.

        All to train with if None. To choose by, and to measure with if None, there are as many as a
        block (`Examples.block`) has: all of a split that is stored, and one example of each image
        of a split that is made.

        Raises:
            UserError: if there are not as many.
        """
        if test is None:
            test = min(self.test.block, len(self.test))
        validation = self.validation
        if validation is not None:
            validation = validation.subset(min(validation.block, len(validation)))
        return dataclasses.replace(
            self,
            train=_subset(self.train, train, "--train-examples", "training"),
            test=_subset(self.test, test, "--test-examples", "test"),
            validation=validation,
        )

    def in_memory(self) -> "Dataset":
        """The set with `Examples.in_memory` in all splits; tells of copies, if any were read."""
        own = self.validation
        found = dataclasses.replace(
            self,
            train=self.train.in_memory(),
            test=self.test.in_memory(),
            validation=None if own is None else own.in_memory(),
        )
        if found.train is not self.train:
            found.tell_of_copies()
        return found

    def tell_of_copies(self) -> None:
        """Tells on stderr of stored images that another split has, too, in every pixel."""
        splits = {"test": self.test, "validation": self.validation, "training": self.train}
        known: dict[bytes, str] = {}
        for name, split in reversed(splits.items()):
            if not isinstance(split, Split):
                continue
            found = [hashlib.sha256(image.tobytes()).digest() for image in split.images]
            of_others = [known[each] for each in found if each in known]
            for other in dict.fromkeys(of_others):
                print(
                    f"note: {name} images that are {other} images, too: {of_others.count(other):,} "
                    f"of {len(found):,}; they say nothing of how new ones are recognised",
                    file=sys.stderr,
                )
            known = {**dict.fromkeys(found, name), **known}

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each split, by its name."""
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: split.fingerprint for name, split in splits.items() if split is not None}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image: `(height, width, channels)`."""
        return self.train.image_shape

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def _subset(examples: Examples, count: int | None, option: str, split: str) -> Examples:
    present = len(examples)
    if count is None or count == present:
        return examples
    if not 1 <= count <= present:
        raise UserError(
            f"{option} is {count}, but there are {present} {split} images: choose 1 to {present}."
        )
    return examples.subset(count)
