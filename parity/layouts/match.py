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
from parity.layouts import targets
from parity.layouts.model_table import DECODER, ModelTable, Sizes
from parity.layouts.table import Layout, Row

Shapes = Mapping[str, tuple[int, ...]]
Counts = Mapping[str, int]

_LATENT = f"{DECODER} -1"  # what a decoder takes


@dataclass(frozen=True)
class Entry:
    """One parameter of capsjax, or one part of it, and the tensors that it is made of.

    Attributes:
        sources: the names of the tensors, in the order in which they are stacked.
        target: the name of the parameter or the part.
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
        """The shape of the parameter or the part."""
        return ax.shape(self.axes.target, self.sizes)


@dataclass(frozen=True)
class Match:
    """A layout laid over the tensors, or the parameters, of one network.

    Attributes:
        layout: the layout.
        sizes: of the network, by the letters of the table: `f`, `c`, `t`, `k`, `i`, `j`, `d`, those
            of kernels as `y features.conv`, and the outputs of modules in a list as
            `decoder.layers 0`.
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
        return sum(key.startswith(f"{DECODER} ") for key in self.sizes) - (_LATENT in self.sizes)

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
        """The sizes as arguments of the model, but for its classes and the shape of its images."""
        options = self.layout.table.arguments(self.sizes)
        if self.layout.table.has_decoder:
            hidden = [self.sizes[f"{DECODER} {n}"] for n in range(self.decoder_layers - 1)]
            options["decoder_hidden"] = hidden if self.decoder_layers else None
        return options

    @property
    def pixels(self) -> int | None:
        """Pixels times channels that the decoder draws; None without decoder."""
        layers = self.decoder_layers
        return self.sizes[f"{DECODER} {layers - 1}"] if layers else None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of capsjax's parameters by their names."""
        shapes = {}
        for name, parts in self._by_parameter().items():
            *leading, _ = parts[0].target_shape
            shapes[name] = (*leading, sum(part.target_shape[-1] for part in parts))
        return shapes

    def to_capsjax(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tensors (weights, gradients or moments) -> arrays by the names of capsjax's parameters.

        Their shapes have to be those of the match. What no tensor is given of, such as the
        statistics of batches where it is gradients, is left out.
        """
        return {
            name: np.concatenate(
                [
                    part.axes.to_target([tensors[source] for source in part.sources], part.sizes)
                    for part in parts
                ],
                axis=-1,
            )
            for name, parts in self._by_parameter().items()
            if any(source in tensors for part in parts for source in part.sources)
        }

    def to_source(self, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inverse of `to_capsjax`."""
        tensors: dict[str, np.ndarray] = {}
        for name, parts in self._by_parameter().items():
            ends = np.cumsum([part.target_shape[-1] for part in parts])
            pieces = np.split(parameters[name], ends[:-1], axis=-1)
            for part, piece in zip(parts, pieces, strict=True):
                of_part = part.axes.to_source(piece, part.sizes)
                tensors |= dict(zip(part.sources, of_part, strict=True))
        return tensors

    def _by_parameter(self) -> dict[str, list[Entry]]:
        """The parts of each parameter in their order."""
        parameters: dict[str, list[Entry]] = {}
        for entry in self.entries:
            parameters.setdefault(targets.parameter(entry.target), []).append(entry)
        for parts in parameters.values():
            parts.sort(key=lambda entry: targets.part(entry.target))
        return parameters


def match(layout: Layout, shapes: Shapes) -> Match:
    """Lays a layout over the tensors of a PyTorch network.

    Args:
        layout: the layout.
        shapes: the shape of each tensor by its name.
    """
    found = _find(layout, shapes)
    evidence = _Evidence(layout.table)
    for piece in found.values():
        evidence.add([(piece.target, piece.row.axes.source)], shapes[piece.name])
    for letter, count in _stacked(found.values()).items():
        evidence.counts[letter] = count
    counts = _counts(layout.table, (piece.target for piece in found.values()))
    return _match(layout, evidence.solve(), counts, shapes, found)


def match_parameters(layout: Layout, shapes: Shapes) -> Match:
    """Lays a layout over the parameters of a capsjax model.

    Args:
        layout: the layout.
        shapes: the shape of each parameter by its name, such as `class_caps.kernel`. All of them
            have the axes that capsjax gives them.

    Returns:
        A match whose `missing` and `extra` are names of parameters.
    """
    counts = _counts(layout.table, shapes)
    parts: dict[str, list[tuple[str, ax.Side]]] = {}
    for row, target in _instances(layout, counts):
        parts.setdefault(targets.parameter(target), []).append((target, row.axes.target))
    evidence = _Evidence(layout.table)
    for name in parts.keys() & shapes.keys():
        evidence.add(parts[name], shapes[name])
    sizes = evidence.solve()
    return Match(
        layout,
        sizes,
        _entries(layout, sizes, counts),
        missing=tuple(sorted(parts.keys() - shapes.keys())),
        extra=tuple(sorted(shapes.keys() - parts.keys())),
        misshapen=(),
        found=len(parts.keys() & shapes.keys()),
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
    """What shapes tell of sizes.

    Attributes:
        table: knows what the sizes are called.
        votes: for each, what single axes say.
        sums: axes that are a sum of products of sizes: several, where parts are joined.
        counts: how many tensors are stacked along a letter.
    """

    table: ModelTable
    votes: dict[str, list[int]] = field(default_factory=dict)
    sums: list[tuple[list[tuple[str, ...]], int]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, parts: Sequence[tuple[str, ax.Side]], shape: tuple[int, ...]) -> None:
        """Takes in an array of parts, each with its name, if it has as many axes as it should."""
        target, side = parts[0]
        if len(shape) != len(side):
            return
        for group, size in zip(side[:-1], shape[:-1], strict=True):
            self._add_axis([self._keys(group, target)], size)
        if shape:
            self._add_axis([self._keys(side[-1], target) for target, side in parts], shape[-1])

    def _keys(self, group: tuple[str, ...], target: str) -> tuple[str, ...]:
        return tuple(self.table.key(letter, target) for letter in group)

    def _add_axis(self, products: list[tuple[str, ...]], size: int) -> None:
        if len(products) == len(products[0]) == 1:
            self.votes.setdefault(products[0][0], []).append(size)
        else:
            self.sums.append((products, size))

    def solve(self) -> dict[str, int]:
        """The size of each axis; those of which nothing is known are left out."""
        sizes = {key: _majority(votes) for key, votes in self.votes.items()}
        for key, count in self.counts.items():
            sizes.setdefault(key, count)
        while votes := self._quotients(sizes) or self._sides(sizes):
            sizes |= {key: _majority(of_key) for key, of_key in votes.items()}
        return sizes

    def _quotients(self, sizes: Sizes) -> dict[str, list[int]]:
        """Of a size that is the only unknown factor of an axis, in all of its products."""
        votes: dict[str, list[int]] = {}
        for products, total in self.sums:
            unknown = [[key for key in keys if key not in sizes] for keys in products]
            known = sum(math.prod(sizes.get(key, 1) for key in keys) for keys in products)
            is_one = len(unknown[0]) == 1 and all(keys == unknown[0] for keys in unknown)
            if is_one and known and total % known == 0:
                votes.setdefault(unknown[0][0], []).append(total // known)
        return votes

    def _sides(self, sizes: Sizes) -> dict[str, list[int]]:
        """Of windows whose sides are not told apart, and so are squares."""
        votes: dict[str, list[int]] = {}
        for products, total in self.sums:
            unknown = [key for key in products[0] if key not in sizes]
            known = math.prod(sizes.get(key, 1) for key in products[0])
            if len(products) == 1 and known and [key[0] for key in unknown] == ["y", "x"]:
                side = math.isqrt(total // known)
                if side * side * known == total:
                    votes |= {key: [side] for key in unknown}
        return votes


def _majority(votes: list[int]) -> int:
    """The most frequent one, the first of equals."""
    return Counter(votes).most_common(1)[0][0]


def _find(layout: Layout, shapes: Shapes) -> dict[str, _Found]:
    found = {}
    for name in shapes:
        for row in layout.rows:
            if matched := row.source.matches(name):
                found[name] = _Found(name, row, *matched)
                break
    return found


def _stacked(found: Iterable[_Found]) -> dict[str, int]:
    """How many tensors are stacked along each axis, by their largest number."""
    counts: dict[str, int] = {}
    for piece in found:
        letter = piece.row.axes.stacked
        if letter is not None and piece.index is not None:
            counts[letter] = max(counts.get(letter, 0), piece.index + 1)
    return counts


def _counts(table: ModelTable, names: Iterable[str]) -> dict[str, int]:
    """How many modules there are in each list, by the names of their parameters."""
    counts: dict[str, int] = {}
    for name in names:
        of_list, number = table.list_of(name), targets.number(name)
        if of_list is not None and number is not None:
            counts[of_list] = max(counts.get(of_list, 0), number + 1)
    return counts


def _instances(layout: Layout, counts: Counts) -> Iterable[tuple[Row, str]]:
    """The rows that a network with so many modules in its lists has, and their parameters.

    There is one module at least in each list, but for a decoder, which may not be there.
    """
    for row in layout.rows:
        if row.is_repeated:
            count = counts.get(layout.table.list_of(row.target) or "", 0 if row.is_decoder else 1)
            yield from ((row, row.target.replace("{n}", str(n))) for n in range(count))
        elif not row.is_decoder or DECODER in counts:
            yield row, row.target


def _match(
    layout: Layout,
    sizes: Sizes,
    counts: Counts,
    shapes: Shapes,
    found: Mapping[str, _Found],
) -> Match:
    with_brackets = Counter(p.decoder for p in found.values() if "[" in p.row.source.text)
    decoder = with_brackets[True] >= with_brackets[False]
    entries, expected = [], set()
    misshapen = []
    for row, target in _instances(layout, counts):
        names = _names(row, target, sizes, decoder=decoder)
        expected |= set(names)
        known = _known_sizes(layout.table, row, target, sizes)
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
    misshapen += _disagreements(sizes, entries, layout)
    return Match(
        layout,
        sizes,
        tuple(entries),
        missing=tuple(sorted(expected - shapes.keys())),
        extra=tuple(sorted(shapes.keys() - expected)),
        misshapen=tuple(misshapen),
        found=len(expected & shapes.keys()),
    )


def _entries(layout: Layout, sizes: Sizes, counts: Counts) -> tuple[Entry, ...]:
    entries = []
    for row, target in _instances(layout, counts):
        known = _known_sizes(layout.table, row, target, sizes)
        if known is not None:
            names = _names(row, target, sizes, decoder=DECODER in counts)
            entries.append(Entry(names, target, row.axes, known))
    return tuple(entries)


def _names(row: Row, target: str, sizes: Sizes, *, decoder: bool) -> tuple[str, ...]:
    """The tensors of a parameter."""
    indices: Sequence[int | None] = [None]
    if row.is_repeated:
        indices = [targets.number(target)]
    elif row.axes.stacked:
        indices = range(sizes.get(row.axes.stacked, 1))
    return tuple(row.source.name(index, decoder=decoder) for index in indices)


def _known_sizes(table: ModelTable, row: Row, target: str, sizes: Sizes) -> dict[str, int] | None:
    """The sizes of a row's letters, or None if one of them is not known."""
    keys = {letter: table.key(letter, target) for group in row.axes.target for letter in group}
    if any(key not in sizes for key in keys.values()):
        return None
    return {letter: sizes[key] for letter, key in keys.items()}


def _disagreements(sizes: Sizes, entries: Sequence[Entry], layout: Layout) -> list[str]:
    """Sizes that no single tensor is to blame for, but that no network of ours has."""
    texts = []
    for entry in entries:
        y, x = entry.sizes.get("y"), entry.sizes.get("x")
        if y != x:
            texts.append(f"{entry.sources[0]} has a kernel of {y}x{x}, which is not square")
    combine = layout.options.get("model_options", {}).get("decoder_combine", "concat")
    if all(key in sizes for key in (_LATENT, "d", "j")):
        expected = sizes["d"] * (1 if combine == "sum" else sizes["j"])
        names = [e.sources[0] for e in entries if e.target == f"{DECODER}.0.kernel"]
        if sizes[_LATENT] != expected and names:
            texts.append(
                f"{names[0]} takes {sizes[_LATENT]} numbers, expected {expected}, which is "
                + ("d" if combine == "sum" else f"j x d = {sizes['j']} x {sizes['d']}")
            )
    return texts
