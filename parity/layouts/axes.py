"""Axes by name, as einops writes them: how the axes of tensors become a parameter's, and back.

`"t f y x -> y x f (t k)"` turns tensors `[t, f, y, x]`, one for each `k`, into `[y, x, f, t k]`.
Names in parentheses are one axis, the last of them running fastest; `1` is an axis of size one. An
axis that is on the right only is the one along which several tensors are stacked.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import einops
import numpy as np

Sizes = Mapping[str, int]


class Axes(NamedTuple):
    """A one-to-one map between the elements of one or several tensors and those of a parameter.

    It has the axes of each tensor, those of the parameter, and the one along which tensors are
    stacked, None for a single tensor.
    """

    source: str
    target: str
    stacked: str | None

    @property
    def stack(self) -> str:
        """The axes of all tensors in one array."""
        return f"{self.stacked or 1} {self.source}"

    def to_target(self, tensors: Sequence[np.ndarray], sizes: Sizes) -> np.ndarray:
        """Tensors with the axes `source`, in the order of `stacked` -> the parameter."""
        return _rearrange(list(tensors), self.stack, self.target, sizes)

    def to_source(self, parameter: np.ndarray, sizes: Sizes) -> list[np.ndarray]:
        """The inverse of `to_target`; each tensor is contiguous."""
        stack = _rearrange(parameter, self.target, self.stack, sizes)
        return [np.ascontiguousarray(tensor) for tensor in stack]


def parse_axes(text: str, stacked: str | None) -> Axes:
    """Reads `"t f y x -> y x f (t k)"`, where tensors are stacked along the axis `stacked`.

    A ValueError if it is not of that form, or the two sides do not have the same names.
    """
    left, arrow, right = text.partition("->")
    if not arrow:
        raise ValueError(f"{text!r} has no '->' between the axes of the tensor and the parameter's")
    axes = Axes(_checked(left), _checked(right), stacked)
    before, after = letters(axes.stack), letters(axes.target)
    if len(set(before)) < len(before) or len(set(after)) < len(after):
        raise ValueError(f"{text!r} names an axis twice on one side")
    if different := sorted(set(before) ^ set(after)):
        raise ValueError(f"{text!r} has {', '.join(different)} on one side only")
    return axes


def groups(axes: str) -> list[tuple[str, ...]]:
    """The names in each axis of `y x f (t k)`: none in one of size one."""
    words = re.findall(r"\(([^)]*)\)|([a-z]+|1)", axes)
    return [tuple((joined or name).replace("1", "").split()) for joined, name in words]


def letters(axes: str) -> list[str]:
    """The names in all axes."""
    return re.findall("[a-z]+", axes)


def shape(axes: str, sizes: Sizes) -> tuple[int, ...]:
    """The shape of an array with these axes."""
    return tuple(math.prod(sizes[name] for name in group) for group in groups(axes))


def _checked(text: str) -> str:
    if not re.fullmatch(r"\s*((\([a-z]+(\s+[a-z]+)*\)|[a-z]+|1)(\s+|$))+", text):
        raise ValueError(
            f"{text.strip()!r} is not a list of axes such as 't f y x', '1 i j d k' or 'i k (j d)'"
        )
    return " ".join(text.split())


def _rearrange(
    arrays: np.ndarray | list[np.ndarray], before: str, after: str, sizes: Sizes
) -> np.ndarray:
    # In upper case, since einops warns of names that are words of Python, such as `in`.
    known = {name.upper(): sizes[name] for name in letters(before)}
    return einops.rearrange(arrays, f"{before} -> {after}".upper(), **known)
