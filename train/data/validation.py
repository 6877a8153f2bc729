"""Validation examples: those of the training split that choose, so that the test split need not."""

import dataclasses

import numpy as np

from train.data.balance import of_each_class
from train.data.dataset import Dataset
from train.system.errors import UserError


def hold_out(dataset: Dataset, amount: float | None) -> Dataset:
    """Sets validation examples aside, which no one trains on.

    They are the last ones of each class, in proportion to the classes: fixed by the order of the
    files, and the same for every seed. Of a set that is made, they are made of images that are set
    aside. A set that brings validation examples of its own keeps its training split whole.

    The amount is how many, from 1 on, or what share of the images; 0 for none, None for what is
    usual: 10,000 of 60,000, as of MNIST, else a tenth, but one of each class is left to train with.

    Raises:
        UserError: if there are not as many.
    """
    own, train = dataset.validation, dataset.train
    if amount == 0:
        return dataclasses.replace(dataset, validation=None)
    if own is not None and amount is None:
        return dataset
    labels = (train if own is None else own).source_labels
    if amount is None:
        count = 10_000 if len(labels) == 60_000 else round(len(labels) / 10)
    else:
        count = round(amount * len(labels)) if amount < 1 else int(amount)
    if own is not None:
        if not 1 <= count <= len(own):
            raise UserError(
                f"--validation is {amount:g}, but {dataset.name} has {len(own)} validation images."
            )
        return dataclasses.replace(dataset, validation=own.subset(count))
    count = max(1, count)
    room = len(labels) - len(np.unique(labels))
    if amount is None:
        if not room:
            return dataset
        count = min(count, room)
    if count > room:
        raise UserError(
            f"--validation is {amount:g}, but an image of each class has to be left to train with: "
            f"of {len(labels)} images choose at most {room}."
        )
    held = of_each_class(labels, count, last=True, leave_one=True)
    left = np.delete(np.arange(len(labels)), held)
    return dataclasses.replace(dataset, train=train.take(left), validation=train.set_aside(held))


def fold(dataset: Dataset, number: int, count: int) -> Dataset:
    """A part of a cross-validation: a share of the training images takes the test split's place.

    The images of each class are dealt out in turn, in the order of the files, so that all folds
    together hold each image once. The test split is not looked at, and nothing is set aside.

    Args:
        dataset: the whole set.
        number: of the fold, from 0 on.
        count: of all folds.

    Raises:
        UserError: if there is a class of which a fold would have none.
    """
    labels = dataset.train.source_labels
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if count > sizes.min():
        raise UserError(
            f"--folds is {count}, but {dataset.name} has a class of {sizes.min()} training images: "
            f"choose at most {sizes.min()}."
        )
    order = np.argsort(classes, kind="stable")
    places = np.empty(len(labels), np.int64)
    places[order] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    held = np.flatnonzero(places % count == number)
    left = np.flatnonzero(places % count != number)
    train = dataset.train
    return dataclasses.replace(
        dataset, train=train.take(left), test=train.set_aside(held), validation=None
    )
