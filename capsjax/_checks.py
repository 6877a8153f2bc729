"""Checks of arguments: each returns the value in its type, or raises a ValueError.

The error says in one sentence what was wrong and what would be right. An argument `name` is what
the message calls the value. `checked` and `check_fields` check all that a function is called with,
or a dataclass is made of, by the annotations: `bool`, a `Literal`, `DTypeLike`, `nnx.Rngs`, and the
types of this file.
"""

import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

Check = Callable[[str, Any], Any]
F = TypeVar("F", bound=Callable[..., Any])


def _integer(least: int) -> Check:
    def check(name: str, value: Any) -> int:
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
        return int(value)

    return check


def _number(is_in_range: Callable[[Any], bool], what: str) -> Check:
    def check(name: str, value: Any) -> float:
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not is_in_range(value):
            raise ValueError(f"{name} must be {what}, not {value!r}")
        return float(value)

    return check


# None of them lets NaN through.
positive_integer = _integer(1)
not_negative_integer = _integer(0)
number = _number(math.isfinite, "a number")
positive_number = _number(lambda x: 0 < x < math.inf, "a number of more than 0")
fraction = _number(lambda x: 0 <= x <= 1, "a number from 0 to 1")
positive_fraction = _number(lambda x: 0 < x <= 1, "a number above 0 and at most 1")
fraction_below_1 = _number(lambda x: 0 <= x < 1, "a number of at least 0 and less than 1")


def positive_integers(name: str, values: Any) -> tuple[int, ...]:
    """A sequence of whole numbers of at least 1, as a tuple."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a sequence of integers of at least 1, not {values!r}")
    return tuple(positive_integer(f"each value of {name}", value) for value in values)


def sizes_by_layer(what: str, **lists: Any) -> list[tuple[int, ...]]:
    """Turns lists of sizes, by the names of their arguments, into one of tuples, one a layer."""
    checked = [positive_integers(name, values) for name, values in lists.items()]
    if len({len(values) for values in checked}) > 1:
        lengths = ", ".join(
            f"{name} has {len(values)}" for name, values in zip(lists, checked, strict=True)
        )
        raise ValueError(f"each {what} needs a value of each of its sizes, but {lengths}")
    return list(zip(*checked, strict=True))


def image_shape(values: Any) -> tuple[int, int, int]:
    """The shape of an image `(height, width, channels)`."""
    shape = positive_integers("image_shape", values)
    if len(shape) != 3:
        raise ValueError(f"image_shape is (height, width, channels), not {values!r}")
    return shape


def of_each(name: str, array: Any, shape: tuple[int, ...]) -> Any:
    """An array `[batch, *shape]`, of a batch of any size."""
    if array.shape[1:] != shape:
        right, found = ", ".join(map(str, ("batch", *shape))), tuple(array.shape)
        if found == shape:
            way_out = "of one example, give x[None]"
        elif len(shape) == 3 and found[1:] == (shape[2], *shape[:2]):
            way_out = "channels come last, give x.transpose(0, 2, 3, 1)"
        else:
            way_out = "give such, or make a network or layer for that shape"
        raise ValueError(f"{name} must be of shape [{right}], not {list(found)}: {way_out}")
    return array


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
    """A floating dtype, or what stands for one; not None, which NumPy takes for float64."""
    try:
        dtype = None if value is None else jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} must be a floating dtype such as 'float32', not {value!r}")
    return dtype


def computed_dtype(name: str, value: Any) -> jnp.dtype:
    """A floating dtype that JAX computes in as it is set up."""
    dtype = floating_dtype(name, value)
    if dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(f"{name} is float64, which needs JAX's x64 mode")
    return dtype


def random_streams(name: str, value: Any) -> nnx.Rngs:
    """Streams of random keys."""
    if not isinstance(value, nnx.Rngs):
        raise ValueError(f"{name} must be flax.nnx.Rngs, such as nnx.Rngs(0), not {value!r}")
    return value


def known_options(owner: str, options: Mapping[str, Any], valid: Collection[str]) -> None:
    """Options by their names, which all must be valid."""
    for name in options:
        if name not in valid:
            raise ValueError(f"{owner} has no option {name!r}, choose from: {', '.join(valid)}")


PositiveInt = Annotated[int, positive_integer]
NotNegativeInt = Annotated[int, not_negative_integer]
PositiveInts = Annotated[Sequence[int], positive_integers]
ImageShape = Annotated[Sequence[int], lambda _name, shape: image_shape(shape)]
Number = Annotated[float, number]
PositiveNumber = Annotated[float, positive_number]
Fraction = Annotated[float, fraction]
PositiveFraction = Annotated[float, positive_fraction]
FractionBelow1 = Annotated[float, fraction_below_1]
Names = Annotated[tuple[str, ...], names]


def checked(function: F) -> F:
    """Decorates a function: its arguments are checked by their annotations before it is called."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name, check in _checks_of(function).items():
            if name in given.arguments:
                given.arguments[name] = check(name, given.arguments[name])
        return function(*given.args, **given.kwargs)

    return typing.cast(F, call)


def check_fields(owner: Any) -> None:
    """Checks the fields of a dataclass by their annotations, when it has been made."""
    kind: Any = type(owner)
    for name, check in _checks_of(kind).items():
        try:
            value = check(name, getattr(owner, name))
        except ValueError as error:
            raise ValueError(f"{kind.__name__}: {error}") from error
        object.__setattr__(owner, name, value)  # it may be frozen


@functools.cache
def _checks_of(annotated: Hashable) -> dict[str, Check]:
    """The check of each name that a function or class annotates with what can be checked."""
    try:
        hints = typing.get_type_hints(annotated, include_extras=True)
    except NameError:  # annotations of somebody's own class that are text, and mean nothing here
        return {}
    checks = {name: _check_of(annotation) for name, annotation in hints.items()}
    return {name: check for name, check in checks.items() if check is not None}


def _check_of(annotation: Any) -> Check | None:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        return boolean
    if annotation == DTypeLike:
        return computed_dtype
    if annotation is nnx.Rngs:
        return random_streams
    if origin is Literal:
        return lambda name, value: one_of(name, value, parts)
    if origin is Annotated:
        return annotation.__metadata__[0]
    if origin in (Union, types.UnionType) and type(None) in parts and len(parts) == 2:
        (check,) = (_check_of(part) for part in parts if part is not type(None))
        return check and (lambda name, value: None if value is None else check(name, value))
    return None
