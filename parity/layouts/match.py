"""A layout laid over one network: which tensor is which parameter, and the sizes of all axes.

A network's sizes are not written down anywhere. Every axis of every tensor gives one, and where
tensors disagree the majority is right and the others are misshapen.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.layouts import axes as ax
from parity.layouts import names
from parity.layouts.axes import Sizes
from parity.layouts.model_table import DECODER, ModelTable
from parity.layouts.table import Layout, Row

Arrays = Mapping[str, np.ndarray]

SHOWN, LONGEST = 6, 200
"""Of how many tensors it is told what is wrong, in a line, and in how many letters."""

_LATENT = f"{DECODER} -1"  # the numbers that a decoder takes
_OUT = re.compile(r"\bout\b")


class Entry(NamedTuple):
    """The target, one parameter of capsjax or one part of it, and the tensors that it is made of.

    They are in the order in which they are stacked; the axes say how the one becomes the other.
    """

    sources: tuple[str, ...]
    target: str
    axes: ax.Axes
    sizes: Sizes

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of the parameter or the part."""
        return ax.shape(self.axes.target, self.sizes)


class Match(NamedTuple):
    """A layout laid over the tensors, or the parameters, of one network.

    Its sizes are by the letters of the table: `f`, `c`, `t`, `k`, `i`, `j`, `d`, those of kernels
    as `y features.conv`, and the outputs of modules in a list as `decoder.layers 0`.
    """

    layout: Layout
    sizes: Sizes
    entries: tuple[Entry, ...]  # as far as the sizes are known
    missing: tuple[str, ...]  # names that the layout has and the network has not
    extra: tuple[str, ...]  # the opposite
    misshapen: tuple[str, ...] = ()  # why a shape is wrong, a text for each tensor

    @property
    def fits(self) -> bool:
        """Whether names and shapes are those of the layout."""
        return not (self.missing or self.extra or self.misshapen)

    def problems(self) -> list[str]:
        """What keeps the layout from fitting, a line for each kind."""
        kinds = {
            "missing": some(self.missing),
            "not in the layout": some(self.extra),
            "wrong shape": some(self.misshapen, "; "),
        }
        return [f"{kind}: {which}" for kind, which in kinds.items() if which]

    def model_options(self) -> dict[str, Any]:
        """The sizes as arguments of the model, but for its classes and the shape of its images."""
        options = self.layout.table.arguments(self.sizes)
        if f"{DECODER}.{{n}}.kernel" in self.layout.table.axes:
            outputs = self._decoder_outputs
            options["decoder_hidden"] = outputs[:-1] if outputs else None
        return options

    @property
    def pixels(self) -> int | None:
        """Pixels times channels that the decoder draws; None without decoder."""
        return self._decoder_outputs[-1] if self._decoder_outputs else None

    @property
    def _decoder_outputs(self) -> list[int]:
        """What each dense layer of the decoder returns; nothing without decoder."""
        keys = (f"{DECODER} {n}" for n in itertools.count())
        return [self.sizes[key] for key in itertools.takewhile(self.sizes.__contains__, keys)]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of capsjax's parameters by their names."""
        return {
            name: (*parts[0].target_shape[:-1], sum(part.target_shape[-1] for part in parts))
            for name, parts in self._by_parameter().items()
        }

    def to_capsjax(self, tensors: Arrays) -> dict[str, np.ndarray]:
        """Tensors (weights, gradients or moments) -> arrays by the names of capsjax's parameters.

        Their shapes have to be those of the match. Parameters of which no tensor is given, such as
        the statistics of batches where it is gradients, are left out.
        """

        def turned(part: Entry) -> np.ndarray:
            return part.axes.to_target([tensors[source] for source in part.sources], part.sizes)

        return {
            name: np.concatenate([turned(part) for part in parts], axis=-1)
            for name, parts in self._by_parameter().items()
            if any(source in tensors for part in parts for source in part.sources)
        }

    def to_source(self, parameters: Arrays) -> dict[str, np.ndarray]:
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
            parameters.setdefault(names.parameter(entry.target), []).append(entry)
        for parts in parameters.values():
            parts.sort(key=lambda entry: names.part(entry.target))
        return parameters


def some(texts: Sequence[str], comma: str = ", ") -> str:
    """The first of several texts, and how many more there are: these are rarely read."""
    more = len(texts) - SHOWN
    shown = (text if len(text) <= LONGEST else f"{text[:LONGEST]}..." for text in texts[:SHOWN])
    return comma.join(shown) + (f"{comma}and {more} more" if more > 0 else "")


def match(layout: Layout, tensors: Arrays) -> Match:
    """Lays a layout over the tensors of a PyTorch network, by their names."""
    found = _find(layout, tensors)
    stacked: dict[str, int] = {}
    for row, _, index, _ in found.values():
        if row.axes.stacked and index is not None:
            stacked[row.axes.stacked] = max(stacked.get(row.axes.stacked, 0), index + 1)
    brackets = Counter(decoder for row, _, _, decoder in found.values() if "[" in row.source.text)
    counts = _counts(layout.table, (target for _, target, _, _ in found.values()))
    arrays = [
        ([(target, row.axes.source)], tensors[name].shape)
        for name, (row, target, _, _) in found.items()
    ]
    sizes = _solve(layout.table, arrays, stacked)

    decoder = brackets[True] >= brackets[False]
    entries, expected, misshapen = [], set(), []
    for entry, is_known in _entries(layout, sizes, counts, decoder=decoder):
        expected |= set(entry.sources)
        wanted, why = None, "which does not go with the others"
        if is_known:
            entries.append(entry)
            wanted = ax.shape(entry.axes.source, entry.sizes)
            why = f"expected {list(wanted)}"
        misshapen += [
            f"{name} is {list(tensors[name].shape)}, {why} ({entry.axes.source})"
            for name in entry.sources
            if name in tensors and tensors[name].shape != wanted
        ]
    return Match(
        layout,
        sizes,
        tuple(entries),
        missing=tuple(sorted(expected - tensors.keys())),
        extra=tuple(sorted(tensors.keys() - expected)),
        misshapen=(*misshapen, *_disagreements(sizes, entries, layout)),
    )


def match_parameters(layout: Layout, parameters: Arrays) -> Match:
    """Lays a layout over the parameters of a capsjax model: `missing` and `extra` name these."""
    counts = _counts(layout.table, parameters)
    parts: dict[str, list[tuple[str, str]]] = {}
    for row, target in _instances(layout, counts):
        parts.setdefault(names.parameter(target), []).append((target, row.axes.target))
    arrays = [(parts[name], parameters[name].shape) for name in parts if name in parameters]
    sizes = _solve(layout.table, arrays, {})
    entries = _entries(layout, sizes, counts, decoder=DECODER in counts)
    return Match(
        layout,
        sizes,
        tuple(entry for entry, is_known in entries if is_known),
        missing=tuple(sorted(parts.keys() - parameters.keys())),
        extra=tuple(sorted(parameters.keys() - parts.keys())),
    )


Parts = Sequence[tuple[str, str]]
"""The names and axes of the parts of an array, which are joined along its last axis."""

Sums = list[tuple[list[tuple[str, ...]], int]]
"""Of each axis the sizes, products of which it is the sum of, and its length."""


def _solve(
    table: ModelTable, arrays: Sequence[tuple[Parts, tuple[int, ...]]], stacked: Sizes
) -> dict[str, int]:
    """The sizes of the axes of arrays of these shapes; those that nothing tells are left out."""
    sums: Sums = []
    for parts, shape in arrays:
        groups = [ax.groups(axes) for _, axes in parts]
        if len(shape) != len(groups[0]):
            continue
        for axis, size in enumerate(shape):
            joined = len(parts) if axis == len(shape) - 1 else 1
            products = [
                tuple(table.key(letter, target) for letter in of_part[axis])
                for (target, _), of_part in zip(parts[:joined], groups, strict=False)
            ]
            sums.append((products, size))
    sizes = {**stacked, **_majorities(_quotients(sums, {}))}  # of axes that are one size
    while votes := _quotients(sums, sizes) or _sides(sums, sizes):
        sizes |= _majorities(votes)
    return sizes


def _quotients(sums: Sums, sizes: Sizes) -> dict[str, list[int]]:
    """Values of a size that is the only unknown factor of an axis, in all of its products."""
    votes: dict[str, list[int]] = {}
    for products, total in sums:
        unknown = [[key for key in keys if key not in sizes] for keys in products]
        known = sum(math.prod(sizes.get(key, 1) for key in keys) for keys in products)
        is_one = len(unknown[0]) == 1 and all(keys == unknown[0] for keys in unknown)
        if is_one and known and total % known == 0:
            votes.setdefault(unknown[0][0], []).append(total // known)
    return votes


def _sides(sums: Sums, sizes: Sizes) -> dict[str, list[int]]:
    """Values of the sides of a window that are one axis, and so those of a square."""
    votes: dict[str, list[int]] = {}
    for products, total in sums:
        unknown = [key for key in products[0] if key not in sizes]
        known = math.prod(sizes.get(key, 1) for key in products[0])
        if len(products) == 1 and known and [key[0] for key in unknown] == ["y", "x"]:
            side = math.isqrt(total // known)
            if side * side * known == total:
                votes |= {key: [side] for key in unknown}
    return votes


def _majorities(votes: Mapping[str, list[int]]) -> dict[str, int]:
    """The most frequent value of each size, the first of equals."""
    return {key: Counter(values).most_common(1)[0][0] for key, values in votes.items()}


def _find(layout: Layout, known: Arrays) -> dict[str, tuple[Row, str, int | None, bool]]:
    """For each name in the table its row, target and number, and whether it has the brackets."""
    found: dict[str, tuple[Row, str, int | None, bool]] = {}
    for row in layout.rows:
        indices: Iterable[int | None] = range(len(known)) if row.source.letter else (None,)
        for index, decoder in itertools.product(indices, (True, False)):
            if (name := row.source.name(index, decoder=decoder)) in known:
                target = row.target.replace("{n}", str(index))
                found.setdefault(name, (row, target, index, decoder))
    return {name: found[name] for name in known if name in found}


def _counts(table: ModelTable, targets: Iterable[str]) -> dict[str, int]:
    """How many modules there are in each list, by the names of their parameters."""
    counts: dict[str, int] = {}
    for target in targets:
        of_list, index = table.list_of(target), names.list_index(target)
        if of_list is not None and index is not None:
            counts[of_list] = max(counts.get(of_list, 0), index + 1)
    return counts


def _instances(layout: Layout, counts: Mapping[str, int]) -> Iterator[tuple[Row, str]]:
    """The rows that a network with so many modules in its lists has, and their parameters."""
    for row in layout.rows:
        if row.is_repeated:
            # There is one module at least in each list, but for a decoder, which may not be there.
            count = counts.get(layout.table.list_of(row.target) or "", 0 if row.is_decoder else 1)
            yield from ((row, row.target.replace("{n}", str(n))) for n in range(count))
        elif not row.is_decoder or DECODER in counts:
            yield row, row.target


def _entries(
    layout: Layout, sizes: Sizes, counts: Mapping[str, int], *, decoder: bool
) -> Iterator[tuple[Entry, bool]]:
    """Each parameter with its tensors, and whether all of its sizes are known."""
    for row, target in _instances(layout, counts):
        indices: Sequence[int | None] = [None]
        if row.is_repeated:
            indices = [names.list_index(target)]
        elif row.axes.stacked:
            indices = range(sizes.get(row.axes.stacked, 1))
        sources = tuple(row.source.name(index, decoder=decoder) for index in indices)
        keys = {x: layout.table.key(x, target) for x in ax.letters(row.axes.target)}
        known = {letter: sizes[key] for letter, key in keys.items() if key in sizes}
        entry, is_known = Entry(sources, target, row.axes, known), len(known) == len(keys)
        is_drawn = row.is_decoder and names.list_index(target) == counts[DECODER] - 1
        if is_known and is_drawn and layout.decoder_draws == "chw":
            entry = _drawn_by_channel(entry, sizes.get("c", 1))
        yield entry, is_known


def _drawn_by_channel(entry: Entry, channels: int) -> Entry:
    """The last layer of a decoder that draws one channel after the other, where ours draws pixels.

    What it draws may be no such image, which is found where the size of images is known.
    """
    pixels, rest = divmod(entry.sizes["out"], channels)
    if channels == 1 or rest:
        return entry
    sizes = {**entry.sizes, "channel": channels, "pixel": pixels}
    source = _OUT.sub("(channel pixel)", entry.axes.source)
    target = _OUT.sub("(pixel channel)", entry.axes.target)
    return entry._replace(axes=ax.Axes(source, target, None), sizes=sizes)


def _disagreements(sizes: Sizes, entries: Sequence[Entry], layout: Layout) -> list[str]:
    """Sizes that no single tensor is to blame for, but that no network of ours has."""
    texts = []
    for entry in entries:
        y, x = entry.sizes.get("y"), entry.sizes.get("x")
        if y != x:
            texts.append(f"{entry.sources[0]} has a kernel of {y}x{x}, which is not square")
    first = [entry.sources[0] for entry in entries if entry.target == f"{DECODER}.0.kernel"]
    if first and sizes.keys() >= {_LATENT, "d", "j"}:
        latent, j, d = sizes[_LATENT], sizes["j"], sizes["d"]
        is_sum = layout.options.get("model_options", {}).get("decoder_combine") == "sum"
        expected, formula = (d, "d") if is_sum else (j * d, f"j x d = {j} x {d}")
        if latent != expected:
            texts.append(
                f"{first[0]} takes {latent} numbers, expected {expected}, which is {formula}"
            )
    return texts
