"""The memory of a training step: what the compiler plans, what was used, and what would fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from train.system.errors import UserError
from train.system.machine import physical_bytes, process_peak_bytes


class DoesNotFitError(UserError):
    """Something needs more memory than there is."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a compiled program takes on each device.

    Attributes:
        arguments: its arguments.
        outputs: its results.
        temporaries: what it needs in between.
        aliased: the part of the results that takes the place of donated arguments.
    """

    arguments: int
    outputs: int
    temporaries: int
    aliased: int

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.arguments + self.outputs + self.temporaries - self.aliased


def footprint(compiled: jax.stages.Compiled) -> Footprint:
    """Reads the compiler's memory analysis."""
    analysis: Any = compiled.memory_analysis()
    return Footprint(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
    )


def room(devices: Sequence[Any]) -> int:
    """Bytes that a program may take on each device; CPU devices share the machine's."""
    statistics = [device.memory_stats() for device in devices]
    limits = [s["bytes_limit"] for s in statistics if s and "bytes_limit" in s]
    return min(limits, default=physical_bytes() // len(devices))


def peak_bytes(devices: Sequence[Any]) -> int:
    """The most memory in use so far on the fullest device; on a CPU, by this process."""
    statistics = [device.memory_stats() for device in devices]
    peaks = [s["peak_bytes_in_use"] for s in statistics if s and "peak_bytes_in_use" in s]
    return max(peaks, default=process_peak_bytes())


@dataclass(frozen=True)
class Prediction:
    """The largest batch that fits a budget.

    Attributes:
        batch_size: that batch.
        predicted_bytes: what its step takes, by a straight line through smaller batches.
        compiled_bytes: what its step takes, by the compiler's analysis.
        bytes_per_image: slope of that line.
        fixed_bytes: its value at no image.
        compiled: every batch size that was compiled, with its bytes.
    """

    batch_size: int
    predicted_bytes: int
    compiled_bytes: int
    bytes_per_image: float
    fixed_bytes: float
    compiled: dict[int, int]


def largest_batch(
    bytes_of: Callable[[int], int], budget: int, *, multiple: int, start: int
) -> Prediction:
    """Finds the largest batch that fits, with few compilations.

    A step's memory grows with the batch along a straight line, or nearly so. The line through two
    batch sizes says which size to compile next; where that one shows the line to be wrong, the line
    is drawn anew, in turns with halving what is left, until the next larger batch would not fit.

    Args:
        bytes_of: what the step takes for a batch, asked once for each size.
        budget: bytes that are there.
        multiple: batches are multiples of it.
        start: where to begin, a multiple; the second size is twice that.

    Raises:
        DoesNotFitError: if not even the smallest batch fits.
    """
    known = {size: bytes_of(size) for size in (start, 2 * start)}
    predicted = dict(known)
    while True:
        fixed, per_image = _line(known, budget)
        fitting = [size for size, needed in known.items() if needed <= budget]
        below = max(fitting, default=0)
        above = min((s for s, needed in known.items() if needed > budget), default=None)
        if below and (
            above == below + multiple
            or (len(known) > 2 and known[below] + per_image * multiple > budget)
        ):
            return Prediction(
                below, predicted[below], known[below], per_image, fixed, dict(sorted(known.items()))
            )
        if above == multiple:
            raise DoesNotFitError(
                f"a batch of {multiple} takes {known[multiple]:,} bytes, more than the "
                f"{budget:,} there are: give more memory, or make the network smaller."
            )
        guess = int((budget - fixed) / max(per_image, 1e-9)) // multiple * multiple
        guess = max(guess, below + multiple)
        if above is not None:
            middle = (below + above) // 2 // multiple * multiple
            guess = middle if len(known) % 2 else min(guess, above - multiple)
        predicted[guess] = round(fixed + per_image * guess)
        known[guess] = bytes_of(guess)


def _line(known: dict[int, int], budget: int) -> tuple[float, float]:
    """Value at zero and slope of the line through the two sizes nearest to the budget."""
    (a, at_a), (b, at_b) = sorted(known.items(), key=lambda item: abs(item[1] - budget))[:2]
    slope = (at_b - at_a) / (b - a)
    return at_a - slope * a, slope
