"""Checks of arguments: each returns the value in its type, or raises a ValueError.

The error says in one sentence what was wrong and what would be right. An argument `name` is what
the message calls the value.
"""

import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax.numpy as jnp


def positive_integer(name: str, value: Any) -> int:
    """A whole number of at least 1."""
    if not _is_integer(value) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
    return int(value)


def not_negative_integer(name: str, value: Any) -> int:
    """A whole number of at least 0."""
    if not _is_integer(value) or value < 0:
        raise ValueError(f"{name} must be an integer of at least 0, not {value!r}")
    return int(value)


def positive_integers(name: str, values: Any) -> tuple[int, ...]:
    """A sequence of whole numbers of at least 1, as a tuple."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a sequence of integers of at least 1, not {values!r}")
    return tuple(positive_integer(f"each value of {name}", value) for value in values)


def each_positive_integer(**values: Any) -> None:
    """Values by their names, each a whole number of at least 1."""
    for name, value in values.items():
        positive_integer(name, value)


def fields(owner: Any, check: Callable[[str, Any], Any], *names: str) -> None:
    """Attributes of an object, each of which a check of this file passes."""
    for name in names:
        check(name, getattr(owner, name))


def image_shape(values: Any) -> tuple[int, int, int]:
    """The shape of an image `(height, width, channels)`."""
    shape = positive_integers("image_shape", values)
    if len(shape) != 3:
        raise ValueError(f"image_shape is (height, width, channels), not {values!r}")
    return shape


def number(name: str, value: Any) -> float:
    """A finite number."""
    if not _is_number(value) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return float(value)


def positive_number(name: str, value: Any) -> float:
    """A finite number above 0."""
    if not _is_number(value) or not 0 < value < math.inf:  # refuses NaN, too
        raise ValueError(f"{name} must be a number of more than 0, not {value!r}")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1:  # refuses NaN, too
        raise ValueError(f"{name} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def boolean(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return value


def names(name: str, values: Any) -> tuple[str, ...]:
    """A sequence of strings, as a tuple."""
    is_sequence = isinstance(values, Iterable) and not isinstance(values, str)
    if not is_sequence or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} must be a sequence of names, not {values!r}")
    return tuple(values)


def one_of(name: str, value: Any, choices: Collection[str]) -> str:
    """One of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"unknown {name} {value!r}, choose from: {', '.join(choices)}")
    return value


def floating_dtype(name: str, value: Any) -> jnp.dtype:
    """A floating dtype, or what stands for one."""
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} must be a floating dtype such as 'float32', not {value!r}")
    return dtype


def known_options(owner: str, options: Mapping[str, Any], valid: Collection[str]) -> None:
    """Options by their names, which all must be valid."""
    for name in options:
        if name not in valid:
            raise ValueError(f"{owner} has no option {name!r}, choose from: {', '.join(valid)}")
