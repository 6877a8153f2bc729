"""Axes by name: how the axes of tensors become those of a parameter, and back.

`"t f y x -> y x f (t k)"` turns tensors `[t, f, y, x]`, one for each `k`, into `[y, x, f, t k]`.
Names in parentheses are one axis, the last of them running fastest; `1` is an axis of size one. An
axis that is on the right only is the one along which several tensors are stacked.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Side = tuple[tuple[str, ...], ...]
"""The axes of an array, each a group of names, `()` for an axis of size one."""

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Axes:
    """A one-to-one map between the elements of one or several tensors and those of a parameter.

    Attributes:
        source: the axes of each tensor.
        target: the axes of the parameter.
        stacked: the axis along which tensors are stacked, or None for a single tensor.
    """

    source: Side
    target: Side
    stacked: str | None

    def to_target(self, tensors: Sequence[np.ndarray], sizes: Sizes) -> np.ndarray:
        """Tensors with the axes `source`, in the order of `stacked` -> the parameter."""
        names = _names(self.source)
        stack = np.stack(tensors) if self.stacked else tensors[0]
        if self.stacked:
            names = (self.stacked, *names)
        apart = stack.reshape([sizes[name] for name in names])
        turned = apart.transpose([names.index(name) for name in _names(self.target)])
        return turned.reshape(shape(self.target, sizes))

    def to_source(self, parameter: np.ndarray, sizes: Sizes) -> list[np.ndarray]:
        """The inverse of `to_target`; each tensor is contiguous."""
        names = _names(self.target)
        wanted = _names(self.source)
        if self.stacked:
            wanted = (self.stacked, *wanted)
        apart = parameter.reshape([sizes[name] for name in names])
        turned = apart.transpose([names.index(name) for name in wanted])
        pieces = list(turned) if self.stacked else [turned]
        return [np.ascontiguousarray(piece).reshape(shape(self.source, sizes)) for piece in pieces]


def parse_axes(text: str, stacked: str | None) -> Axes:
    """Reads `"t f y x -> y x f (t k)"`.

    Args:
        text: both sides.
        stacked: the axis along which tensors are stacked.

    Raises:
        ValueError: it is not of that form, or the two sides do not have the same names.
    """
    left, arrow, right = text.partition("->")
    if not arrow:
        raise ValueError(f"{text!r} has no '->' between the axes of the tensor and the parameter's")
    axes = Axes(parse_side(left), parse_side(right), stacked)
    before, after = _names(axes.source), _names(axes.target)
    if stacked:
        before = (stacked, *before)
    if len(set(before)) < len(before) or len(set(after)) < len(after):
        raise ValueError(f"{text!r} names an axis twice on one side")
    if different := sorted(set(before) ^ set(after)):
        raise ValueError(f"{text!r} has {', '.join(different)} on one side only")
    return axes


def parse_side(text: str) -> Side:
    """Reads `"y x f (t k)"`.

    Raises:
        ValueError: it is not of that form.
    """
    if not re.fullmatch(r"\s*((\([a-z]+(\s+[a-z]+)*\)|[a-z]+|1)(\s+|$))+", text):
        raise ValueError(
            f"{text.strip()!r} is not a list of axes such as 't f y x', '1 i j d k' or 'i k (j d)'"
        )
    groups = re.findall(r"\(([^)]*)\)|([a-z]+|1)", text)
    return tuple(
        tuple(joined.split()) if joined else (() if name == "1" else (name,))
        for joined, name in groups
    )


def shape(side: Side, sizes: Sizes) -> tuple[int, ...]:
    """The shape of an array with these axes."""
    return tuple(math.prod(sizes[name] for name in group) for group in side)


def describe(side: Side) -> str:
    """The axes as they are written: `y x f (t k)`."""
    words = ("1" if not g else g[0] if len(g) == 1 else f"({' '.join(g)})" for g in side)
    return " ".join(words)


def _names(side: Side) -> tuple[str, ...]:
    return tuple(name for group in side for name in group)
