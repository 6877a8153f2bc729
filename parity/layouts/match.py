"""Which tensor is which parameter, and how large everything is: what a layout says of one network.

A network's sizes are not written down anywhere. Every axis of every tensor tells one, and where
tensors disagree the majority is right and the others are misshapen.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.layouts import axes as ax
from parity.layouts.table import DECODER, Layout, Row

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Entry:
    """One parameter of capsjax and the tensors that it is made of.

    Attributes:
        sources: the names of the tensors, in the order in which they are stacked.
        target: the name of the parameter.
        axes: how the one becomes the other.
        sizes: of the axes.
    """

    sources: tuple[str, ...]
    target: str
    axes: ax.Axes
    sizes: Mapping[str, int]

    @property
    def source_shape(self) -> tuple[int, ...]:
        """The shape of each tensor."""
        return ax.shape(self.axes.source, self.sizes)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return ax.shape(self.axes.target, self.sizes)


@dataclass(frozen=True)
class Match:
    """A layout laid over the tensors, or the parameters, of one network.

    Attributes:
        layout: the layout.
        sizes: of the network, by the letters of the table: `f`, `c`, `t`, `k`, `i`, `j`, `d`, those
            of kernels as `y features.conv`, and the outputs of decoder layers as `decoder 0`.
        entries: what is to be converted, as far as the sizes are known.
        missing: names that the layout has and the network has not.
        extra: the opposite.
        misshapen: what is wrong with the shapes, a text for each tensor.
        found: how many names both have.
    """

    layout: Layout
    sizes: Mapping[str, int]
    entries: tuple[Entry, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshapen: tuple[str, ...]
    found: int

    @property
    def fits(self) -> bool:
        """Whether names and shapes are those of the layout."""
        return not (self.missing or self.extra or self.misshapen)

    @property
    def decoder_layers(self) -> int:
        """Number of dense layers of the decoder; 0 for no decoder."""
        return sum(key.startswith("decoder ") and key != "decoder -1" for key in self.sizes)

    def problems(self) -> list[str]:
        """What keeps the layout from fitting, a line for each kind."""
        lines = []
        if self.missing:
            lines.append(f"missing: {', '.join(self.missing)}")
        if self.extra:
            lines.append(f"not in the layout: {', '.join(self.extra)}")
        if self.misshapen:
            lines.append(f"wrong shape: {'; '.join(self.misshapen)}")
        return lines

    def model_options(self) -> dict[str, Any]:
        """The sizes as arguments of `capsjax.CapsNet`; see also `num_classes` and `image_shape`."""
        hidden = [self.sizes[f"decoder {n}"] for n in range(self.decoder_layers - 1)]
        return {
            "conv_features": self.sizes["f"],
            "conv_kernel": self.sizes["y features.conv"],
            "primary_types": self.sizes["t"],
            "primary_dim": self.sizes["k"],
            "primary_kernel": self.sizes["y primary_caps.conv"],
            "class_dim": self.sizes["d"],
            "decoder_hidden": hidden if self.decoder_layers else None,
        }

    @property
    def pixels(self) -> int | None:
        """Pixels times channels that the decoder draws; None without decoder."""
        layers = self.decoder_layers
        return self.sizes[f"decoder {layers - 1}"] if layers else None

    def to_capsjax(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tensors (weights, gradients or moments) -> arrays by the names of capsjax's parameters.

        Their shapes have to be those of the match.
        """
        return {
            entry.target: entry.axes.to_target([tensors[s] for s in entry.sources], entry.sizes)
            for entry in self.entries
        }

    def to_source(self, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inverse of `to_capsjax`."""
        tensors: dict[str, np.ndarray] = {}
        for entry in self.entries:
            pieces = entry.axes.to_source(parameters[entry.target], entry.sizes)
            tensors |= dict(zip(entry.sources, pieces, strict=True))
        return tensors


def match(layout: Layout, shapes: Shapes) -> Match:
    """Lays a layout over the tensors of a PyTorch network.

    Args:
        layout: the layout.
        shapes: the shape of each tensor by its name.
    """
    found = _find(layout, shapes)
    evidence = _Evidence()
    for piece in found.values():
        evidence.add(piece.row.axes.source, shapes[piece.name], piece.target)
    for letter, count in _counts(found.values()).items():
        evidence.counts[letter] = count
    return _match(layout, evidence.solve(), _layers(found.values()), shapes, found)


def match_parameters(layout: Layout, shapes: Shapes) -> Match:
    """Lays a layout over the parameters of a `capsjax.CapsNet`.

    Args:
        layout: the layout.
        shapes: the shape of each parameter by its name, such as `class_caps.kernel`. All of them
            have the axes that capsjax gives them.

    Returns:
        A match whose `missing` and `extra` are names of parameters.
    """
    numbers = [int(name.split(".")[2]) for name in shapes if name.startswith(DECODER)]
    layers = max(numbers, default=-1) + 1
    evidence, targets = _Evidence(), set()
    for row, target in _instances(layout, layers):
        targets.add(target)
        if target in shapes:
            evidence.add(row.axes.target, shapes[target], target)
    sizes = evidence.solve()
    return Match(
        layout,
        sizes,
        _entries(layout, sizes, layers),
        missing=tuple(sorted(targets - shapes.keys())),
        extra=tuple(sorted(shapes.keys() - targets)),
        misshapen=(),
        found=len(targets & shapes.keys()),
    )


@dataclass(frozen=True)
class _Found:
    """A tensor whose name is in the table: its row, its number, and what is known from the name."""

    name: str
    row: Row
    index: int | None
    decoder: bool

    @property
    def target(self) -> str:
        return self.row.target.replace("{n}", str(self.index))


@dataclass
class _Evidence:
    """What shapes tell of sizes."""

    votes: dict[str, list[int]] = field(default_factory=dict)
    products: list[tuple[tuple[str, ...], int]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, side: ax.Side, shape: tuple[int, ...], target: str) -> None:
        """Takes in an array of a shape, if it has as many axes as it should."""
        if len(shape) != len(side):
            return
        for group, size in zip(side, shape, strict=True):
            keys = tuple(_key(letter, target) for letter in group)
            if len(keys) == 1:
                self.votes.setdefault(keys[0], []).append(size)
            elif keys:
                self.products.append((keys, size))

    def solve(self) -> dict[str, int]:
        """The size of each axis; those of which nothing is known are left out."""
        sizes = {key: _majority(votes) for key, votes in self.votes.items()}
        for key, count in self.counts.items():
            sizes.setdefault(key, count)
        while votes := self._quotients(sizes):
            sizes |= {key: _majority(of_key) for key, of_key in votes.items()}
        return sizes

    def _quotients(self, sizes: Mapping[str, int]) -> dict[str, list[int]]:
        votes: dict[str, list[int]] = {}
        for keys, product in self.products:
            unknown = [key for key in keys if key not in sizes]
            known = math.prod(sizes[key] for key in keys if key in sizes)
            if len(unknown) == 1 and known and product % known == 0:
                votes.setdefault(unknown[0], []).append(product // known)
        return votes


def _majority(votes: list[int]) -> int:
    """The most frequent one, the first of equals."""
    return Counter(votes).most_common(1)[0][0]


def _key(letter: str, target: str) -> str:
    """What a letter means in the tensors of a parameter."""
    if letter in ("y", "x"):
        return f"{letter} {target.rsplit('.', 1)[0]}"
    if letter in ("in", "out"):
        layer = int(target.split(".")[2])
        return f"decoder {layer if letter == 'out' else layer - 1}"
    return letter


def _find(layout: Layout, shapes: Shapes) -> dict[str, _Found]:
    found = {}
    for name in shapes:
        for row in layout.rows:
            if matched := row.source.matches(name):
                found[name] = _Found(name, row, *matched)
                break
    return found


def _counts(found: Iterable[_Found]) -> dict[str, int]:
    """How many tensors are stacked along each axis, by their largest number."""
    counts: dict[str, int] = {}
    for piece in found:
        letter = piece.row.axes.stacked
        if letter is not None and piece.index is not None:
            counts[letter] = max(counts.get(letter, 0), piece.index + 1)
    return counts


def _layers(found: Iterable[_Found]) -> int:
    """The number of decoder layers."""
    of_decoder = [piece for piece in found if piece.row.is_decoder]
    numbers = [int(piece.target.split(".")[2]) for piece in of_decoder]
    return max(numbers, default=-1) + 1


def _instances(layout: Layout, layers: int) -> Iterable[tuple[Row, str]]:
    """The rows that a network with so many decoder layers has, and their parameters."""
    for row in layout.rows:
        if row.is_repeated:
            yield from ((row, row.target.replace("{n}", str(n))) for n in range(layers))
        elif not row.is_decoder or layers:
            yield row, row.target


def _match(
    layout: Layout,
    sizes: Mapping[str, int],
    layers: int,
    shapes: Shapes,
    found: Mapping[str, _Found],
) -> Match:
    with_brackets = Counter(p.decoder for p in found.values() if "[" in p.row.source.text)
    decoder = with_brackets[True] >= with_brackets[False]
    entries, expected = [], set()
    misshapen = []
    for row, target in _instances(layout, layers):
        names = _names(row, target, sizes, decoder=decoder)
        expected |= set(names)
        known = _known_sizes(row, target, sizes)
        if known is None:
            misshapen += [
                f"{name} is {list(shapes[name])}, which does not go with the others "
                f"({ax.describe(row.axes.source)})"
                for name in names
                if name in shapes
            ]
            continue
        entry = Entry(names, target, row.axes, known)
        entries.append(entry)
        for name in names:
            if name in shapes and tuple(shapes[name]) != entry.source_shape:
                misshapen.append(
                    f"{name} is {list(shapes[name])}, expected {list(entry.source_shape)} "
                    f"({ax.describe(row.axes.source)})"
                )
    misshapen += _disagreements(sizes, layers, entries, layout)
    return Match(
        layout,
        sizes,
        tuple(entries),
        missing=tuple(sorted(expected - shapes.keys())),
        extra=tuple(sorted(shapes.keys() - expected)),
        misshapen=tuple(misshapen),
        found=len(expected & shapes.keys()),
    )


def _entries(layout: Layout, sizes: Mapping[str, int], layers: int) -> tuple[Entry, ...]:
    entries = []
    for row, target in _instances(layout, layers):
        known = _known_sizes(row, target, sizes)
        if known is not None:
            names = _names(row, target, sizes, decoder=bool(layers))
            entries.append(Entry(names, target, row.axes, known))
    return tuple(entries)


def _names(row: Row, target: str, sizes: Mapping[str, int], *, decoder: bool) -> tuple[str, ...]:
    """The tensors of a parameter."""
    indices: Sequence[int | None] = [None]
    if row.is_repeated:
        indices = [int(target.split(".")[2])]
    elif row.axes.stacked:
        indices = range(sizes.get(row.axes.stacked, 1))
    return tuple(row.source.name(index, decoder=decoder) for index in indices)


def _known_sizes(row: Row, target: str, sizes: Mapping[str, int]) -> dict[str, int] | None:
    """The sizes of a row's letters, or None if one of them is not known."""
    letters = [letter for group in row.axes.target for letter in group]
    if any(_key(letter, target) not in sizes for letter in letters):
        return None
    return {letter: sizes[_key(letter, target)] for letter in letters}


def _disagreements(
    sizes: Mapping[str, int], layers: int, entries: Sequence[Entry], layout: Layout
) -> list[str]:
    """Sizes that no single tensor is to blame for, but that no `CapsNet` has."""
    texts = []
    for part in ("features.conv", "primary_caps.conv"):
        y, x = sizes.get(f"y {part}"), sizes.get(f"x {part}")
        names = [e.sources[0] for e in entries if e.target == f"{part}.kernel"]
        if y != x and names:
            texts.append(f"{names[0]} has a kernel of {y}x{x}, which is not square")
    combine = layout.options.get("model_options", {}).get("decoder_combine", "concat")
    if layers and all(key in sizes for key in ("decoder -1", "d", "j")):
        expected = sizes["d"] * (1 if combine == "sum" else sizes["j"])
        names = [e.sources[0] for e in entries if e.target == f"{DECODER}0.kernel"]
        if sizes["decoder -1"] != expected and names:
            texts.append(
                f"{names[0]} takes {sizes['decoder -1']} numbers, expected {expected}, which is "
                + ("d" if combine == "sum" else f"j x d = {sizes['j']} x {sizes['d']}")
            )
    return texts
