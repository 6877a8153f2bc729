"""Definition of a claim: networks trained with equal care, and what is measured of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from train.config.fit_config import FitConfig

Budget = Literal["small", "medium", "paper"]


@dataclass(frozen=True)
class Arm:
    """A kind of network, one row of a claim's table.

    Attributes:
        name: of the row.
        config: how it is trained; its seed is not used.
        paper: by the names of quantities, what the paper has for it.
        searched: by the learning rates that were tried, the accuracy on validation images.
    """

    name: str
    config: FitConfig
    paper: Mapping[str, float] = field(default_factory=dict)
    searched: Mapping[float, float] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as the beginning of a folder's."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.name.lower())
        return "-".join(words.split())


@dataclass(frozen=True)
class Quantity:
    """A measure of every network, one column of a claim's table.

    Attributes:
        name: of the column.
        of: measures it, of the folder of a run; it takes the folder of the official files, too. It
            gives a number, or one for each image, `[images]`, whose mean is the quantity.
    """

    name: str
    of: Callable[[Path, Path | None], float | np.ndarray]


@dataclass(frozen=True)
class Contrast:
    """The statement that a quantity is less for one arm than for another.

    Attributes:
        less: the name of the arm of which it is less.
        more: the name of the other.
        quantity: its name.
    """

    less: str
    more: str
    quantity: str


@dataclass(frozen=True)
class Claim:
    """Something that is said of capsule networks.

    Attributes:
        says: the claim, in a sentence.
        source: the paper and the section that it comes from.
        arms: the networks for each budget.
        quantities: what is measured.
        contrasts: by which it is judged whether the claim was seen.
        figures: names of those of the first arm's first run that belong to what was seen.
    """

    says: str
    source: str
    arms: Callable[[Budget], Sequence[Arm]]
    quantities: Sequence[Quantity]
    contrasts: Sequence[Contrast]
    figures: Sequence[str] = ()
