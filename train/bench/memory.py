"""The largest batch whose training step fits into so much memory."""

from collections.abc import Callable
from typing import Any

from train.bench.timing import fit_line
from train.system.errors import DoesNotFitError


def largest_batch(
    bytes_of: Callable[[int], int], budget: int, *, multiple: int, start: int
) -> dict[str, Any]:
    """Finds the largest batch that fits, with few compilations.

    A step's memory grows with the batch along a straight line, or nearly so. The line through two
    batch sizes says which size to compile next; where that one shows the line to be wrong, the line
    is drawn anew, in turns with halving what is left, until the next larger batch would not fit.

    Batches are multiples of one size, the first is `start`, the second twice that. Of each size it
    is asked once how many bytes the step takes; the budget is how many there are.

    Returns:
        The `batch_size`; what it takes by a straight line, `predicted_bytes`, and as compiled,
        `compiled_bytes`; `bytes_per_image` and `fixed_bytes` of the line through it and the
        smallest batch; and in `compiled` the bytes of every batch size that was compiled.

    Raises:
        DoesNotFitError: if not even the smallest batch fits.
    """
    known = {size: bytes_of(size) for size in (start, 2 * start)}
    predicted = dict(known)
    while True:
        nearest = sorted(known.items(), key=lambda item: abs(item[1] - budget))[:2]
        line = fit_line(*zip(*nearest, strict=True))
        below = max((size for size, needed in known.items() if needed <= budget), default=0)
        above = min((size for size, needed in known.items() if needed > budget), default=None)
        next_one = known.get(below, 0) + line.each * multiple
        if below and (above == below + multiple or (len(known) > 2 and next_one > budget)):
            fit = sorted(size for size in known if size <= below)
            if len(fit) > 1:  # the two nearest alone may lie on either side of a jump
                line = fit_line((fit[0], below), (known[fit[0]], known[below]))
            return {
                "batch_size": below,
                "predicted_bytes": predicted[below],
                "compiled_bytes": known[below],
                "bytes_per_image": line.each,
                "fixed_bytes": line.fixed,
                "compiled": dict(sorted(known.items())),
            }
        if above == multiple:
            raise DoesNotFitError(
                f"a batch of {multiple} takes {known[multiple]:,} bytes, more than the "
                f"{budget:,} there are: give more memory, or make the network smaller."
            )
        guess = int((budget - line.fixed) / max(line.each, 1e-9)) // multiple * multiple
        guess = max(guess, below + multiple)
        if above is not None:
            middle = (below + above) // 2 // multiple * multiple
            guess = middle if len(known) % 2 else min(guess, above - multiple)
        predicted[guess] = round(line.fixed + line.each * guess)
        known[guess] = bytes_of(guess)
