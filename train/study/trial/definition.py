"""Definition of a claim: networks trained with equal care, and what is measured of each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from train.config.fit_config import FitConfig

Budget = Literal["small", "medium", "paper"]


class Arm(NamedTuple):
    """A kind of network, one row of a claim's table."""

    name: str  # of the row
    config: FitConfig  # how it is trained; its seed is not used
    paper: Mapping[str, float] = {}  # by the names of quantities, what the paper has for it
    searched: Mapping[float, float] = {}  # by the learning rates tried, the validation accuracy

    @property
    def slug(self) -> str:
        """The name as the beginning of a folder's."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.name.lower())
        return "-".join(words.split())


class Quantity(NamedTuple):
    """A measure of every network, one column of a claim's table.

    It is measured of the folder of a run, with the folder of the official files: a number, or one
    for each image, `[images]`, whose mean is the quantity.
    """

    name: str
    of: Callable[[Path, Path | None], float | np.ndarray]


class Contrast(NamedTuple):
    """The statement that a quantity is less for one arm than for another, by their names."""

    less: str
    more: str
    quantity: str


class Claim(NamedTuple):
    """Something that is said of capsule networks."""

    says: str  # the claim, in a sentence
    source: str  # the paper and the section that it comes from
    arms: Callable[[Budget], Sequence[Arm]]  # the networks for each budget
    quantities: Sequence[Quantity]
    contrasts: Sequence[Contrast]  # by which it is judged whether the claim was seen
    figures: Sequence[str] = ()  # names of those of the first arm's first run that show it
