"""How far two computations of the same numbers may differ: one table, for tests and for parity.

An operation rounds by half a machine epsilon at most. A sum of n terms gathers n such errors, which
grow like sqrt(n) because their signs vary. So a limit is some epsilons, for the few operations
beside the longest sum, times the square root of its terms, and never more than the ceiling of its
dtype. The table is not a knob: what misses its limit has a defect, names the wrong reduction
length, or has an input that no implementation can be expected to agree on, and that is shown, not
assumed.

In `parity check` an error is the largest difference in a stage divided by the largest magnitude in
it: the elements of a stage are added to one another further on, so an error counts by the size of
what it is added to. A difference below the smallest normal number of the dtype (1e-38 in float32),
which XLA lets processors take for zero, is none; a stage that is zero in one network is zero in the
other, up to that number.

An input on which no implementation can be expected to agree is one on which the reference in
float32 is far from itself in float64. Where capsjax misses a limit in float32, that is looked at:
if capsjax is within the limit of the reference in float64, or no more than twice as far as the
reference in float32 is, the difference is information, and float64 is the proof.

Training in float32 can be held to a limit only where rounding alone does not exceed it. Adam's
first steps are the learning rate times the sign of the gradient, also where that is smaller than
its rounding error; there two right implementations step in opposite directions. Whether that is so
is measured: the reference is trained in float64 too. From where its float32 training is further
from that than the ceiling (at the paper's sizes after a step, in most tiny networks never), the
difference from capsjax is information. What proves the training of large networks is the optimiser
by itself, given the same gradients for 20 steps and held to the forward limits, and float64.
"""

import math
from typing import Literal

Kind = Literal["test", "forward", "gradient", "training"]

MACHINE_EPSILONS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}

EPSILONS = {"test": 8, "forward": 4, "gradient": 16}
"""Operations beside the longest sum; a gradient goes through all of them twice."""

CEILINGS: dict[str, dict[Kind, float]] = {
    "float64": {"forward": 1e-12, "gradient": 1e-12, "training": 1e-9},
    "float32": {"forward": 2e-6, "gradient": 2e-5, "training": 2e-5},
}
"""The largest limits of `parity check`; the tests, which name their sums, have none."""


def limit(kind: Kind, dtype: str, reduction_length: int = 1) -> float:
    """The largest relative difference that is accepted, of a `"test"` or a kind of stage.

    The dtype is the coarsest of the computation, `"bfloat16"` for tests alone; the reduction length
    the terms of the longest sum on the way, of no use for `"training"`. A ValueError if the table
    has no such dtype, or the sum no terms.
    """
    if dtype not in MACHINE_EPSILONS:
        raise ValueError(f"no tolerance for {dtype}: the table has {', '.join(MACHINE_EPSILONS)}")
    if reduction_length < 1:
        raise ValueError(f"a sum has at least one term, not reduction_length={reduction_length}")
    if kind == "training":
        return CEILINGS[dtype][kind]
    rounding = EPSILONS[kind] * MACHINE_EPSILONS[dtype] * math.sqrt(reduction_length)
    return rounding if kind == "test" else min(CEILINGS[dtype][kind], rounding)


def is_rounding(reference: float, ours: float, limit: float) -> bool:
    """Whether two computations in float32 part by rounding alone, given their errors from float64.

    capsjax may be twice as far as the reference, or as the limit. Where a reference is not finite,
    nothing is explained by rounding.
    """
    return math.isfinite(reference) and ours <= max(limit, 2 * reference)
