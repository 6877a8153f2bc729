"""The parts of the report, in their order: what matters most comes first, what can wait last."""

from dataclasses import dataclass

from parity.bench.gpu import check, contenders, fitting, machine, memory, routing, training
from parity.bench.gpu.task import Measure


@dataclass(frozen=True)
class Part:
    """A part of the report.

    Attributes:
        name: what its findings are kept under.
        measure: does it, in a process of its own.
        weight: its share of the time that is left, beside those of the parts after it.
        alone: what does the same, or much the same, outside of the report; None if nothing does.
    """

    name: str
    measure: Measure
    weight: float
    alone: str | None


PARTS = (
    Part("machine", machine.measure, 25, None),
    Part("training", training.measure, 120, "python -m train bench mnist --dtypes bfloat16"),
    Part("contenders", contenders.measure, 120, "python -m parity bench --dtype bfloat16"),
    Part("epoch", fitting.measure_epoch, 35, "python -m train fit mnist --dtype bfloat16"),
    Part("routing", routing.measure, 30, None),
    Part("memory", memory.measure, 60, "python -m train bench mnist --predict-memory BYTES"),
    Part("parity", check.measure, 50, "python -m parity check"),
    Part("recipe", fitting.measure_recipe, 100, "python -m train fit mnist"),
)
