"""Arguments are checked by their annotations, and what has none of these is left alone."""

import dataclasses
from typing import Literal

import pytest

from capsjax._checks import Fraction, PositiveInt, PositiveInts, check_fields, checked


@checked
def function(
    size: PositiveInt,
    sizes: PositiveInts | None = None,
    *,
    way: Literal["in", "out"] = "in",
    is_so: bool = False,
    other: int = 0,
):
    return size, sizes, way, is_so, other


def test_arguments_come_in_their_types():
    assert function(2, [3, 4], other=-1) == (2, (3, 4), "in", False, -1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be an integer of at least 1, not 0"),
        ({"sizes": 3}, "sizes must be a sequence of integers of at least 1, not 3"),
        ({"way": "up"}, "unknown way 'up', choose from: in, out"),
        ({"is_so": 1}, "is_so must be True or False, not 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"size": 1, **arguments})


def test_a_dataclass_says_whose_field_is_wrong():
    @dataclasses.dataclass(frozen=True)
    class Own:
        share: Fraction = 0.5

        __post_init__ = check_fields

    assert Own(1).share == 1.0
    with pytest.raises(ValueError, match="Own: share must be a number from 0 to 1, not nan"):
        Own(float("nan"))


def test_annotations_that_mean_nothing_are_left_alone():
    @dataclasses.dataclass
    class Own:
        share: "Unknown"  # noqa: F821

        __post_init__ = check_fields

    assert Own(3).share == 3
