"""capsjax and PyTorch side by side, at the batch size best for capsjax and at parts of it."""

import sys
from collections.abc import Iterator

from parity.bench.gpu.task import Found, Task
from parity.bench.measure import make_work, summarise
from parity.bench.measure import measure as measure_contenders
from parity.cli.bench import available_cores


def measure(task: Task) -> Iterator[Found]:
    """Finds `rows` of `parity.bench.measure.summarise`, whose ratios are to capsjax."""
    plan = task.plan
    rows: list[Found] = []
    for part in plan.contender_parts:
        batch_size = max(1, task.best_batch // part)
        work = make_work(
            batch_size,
            dtype=plan.dtype,
            iterations=plan.config.model.routing_iterations,
            sizes=plan.contender_sizes,
        )
        for group in plan.contenders:
            results = measure_contenders(
                ("capsjax", *group),
                [work],
                repetitions=plan.repetitions,
                seconds=plan.seconds,
                cores=available_cores(),
                note=lambda text: print(text, file=sys.stderr, flush=True),
            )
            rows += summarise(results, "capsjax")
            yield {"rows": rows}
