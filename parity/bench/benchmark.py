"""What `python -m parity bench` measures: side by side, and how much of the machine is used."""

import itertools
from collections.abc import Sequence
from typing import Any

from parity.bench.contenders import chosen_contenders
from parity.bench.side_by_side import measure, stay_on, summarise
from parity.bench.table import draw, markdown
from parity.bench.work import Work, make_work
from train.bench.report import Report
from train.bench.timing import Rounds
from train.bench.worker import in_own_process
from train.system.machine import describe_machine


def bench(
    models: Sequence[str],
    contenders: Sequence[str],
    batch_sizes: Sequence[int],
    *,
    dtypes: Sequence[str],
    iterations: int | None,
    rounds: Rounds,
    cores: int,
    against: str | None = None,
    output: str | None = None,
    chart: str = "bench.png",
) -> Report:
    """Measures contenders side by side, on so many cores each.

    A user's module `FILE.py:NAME` takes part, too, as `parity.bench.own_module` describes. The
    report's only figure is called `chart`.

    Raises:
        UserError: there is no such network, its routing has no iterations, or the user's module is
            none that can be trained.
    """
    points = dict.fromkeys(itertools.product(models, dtypes, batch_sizes))
    works = [make_work(m, size, dtype=dtype, iterations=iterations) for m, dtype, size in points]
    makers = chosen_contenders(contenders, against, output)
    machine = {"cores": cores, **describe_machine(("jax", "jaxlib", "flax", "torch"))}
    machine |= in_own_process(_ceilings, cores, tuple(dtypes), rounds.short)
    rows = [
        row
        for work in works
        for row in _with_work(summarise(measure(makers, work, rounds=rounds, cores=cores)), work)
    ]
    title = f"{machine['device_kind']}, {cores} cores"
    values = {"machine": machine, "rows": rows}
    return Report(markdown(rows, machine), values, {chart: draw(rows, title)})


def _with_work(rows: list[dict[str, Any]], work: Work) -> list[dict[str, Any]]:
    """The rows of some work with `flops_per_image`, those of a step or of a forward pass."""
    flops = in_own_process(_flops, work)
    return [{**row, "flops_per_image": flops[row["work"]]} for row in rows]


def _flops(work: Work) -> dict[str, float | None]:
    from parity.bench.contenders import training
    from train.bench.training import network_flops

    forward, both = network_flops(*training(work))
    return {"train": both, "forward": forward}


def _ceilings(cores: int, dtypes: Sequence[str], rounds: Rounds) -> dict[str, Any]:
    from train.bench.ceilings import measure_machine

    stay_on(cores)
    return measure_machine(dtypes, 1, rounds)
