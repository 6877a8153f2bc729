"""How fast training is: at several batch sizes, then with each implementation of routing."""

import statistics
import time
from collections.abc import Iterator
from functools import partial

from capsjax.routing.dense import IMPLEMENTATIONS
from parity.bench.gpu.plan import Plan
from parity.bench.gpu.task import Found, Task, attempt, fastest
from train.bench.data import load_or_imitate
from train.bench.measure import plain_routing
from train.bench.stepping import endless_batches, train
from train.bench.timing import time_rounds
from train.bench.work import network_work
from train.config.fit_config import FitConfig
from train.data import Dataset
from train.learn.program import assemble


def measure(task: Task) -> Iterator[Found]:
    """Finds `flops_per_image` of a training step, and `rows`, one for each that was tried.

    A row holds `batch_size`, `implementation` (None: the library's choice), `failure`, and, where
    that is None, median `images_per_second`, its `slowest` and `fastest` round, and
    `first_step_seconds`.
    """
    plan = task.plan
    dataset, synthetic = load_or_imitate(plan.config.data.dataset, data_dir=task.data_dir)
    _, flops = network_work(plain_routing(plan.config), dataset.image_shape, dataset.num_classes)
    yield {"flops_per_image": flops, "random_images": synthetic}
    rows: list[Found] = []

    def add(batch_size: int, implementation: str | None) -> Found:
        config = plan.training(batch_size, implementation)
        point = {"batch_size": batch_size, "implementation": implementation}
        rows.append({**point, **attempt(partial(_speed, config, dataset, plan))})
        return {"rows": rows}

    for batch_size in plan.batch_sizes:
        yield add(batch_size, None)
    best = fastest(rows)
    if best is not None:
        for implementation in IMPLEMENTATIONS:
            yield add(best["batch_size"], implementation)


def _speed(config: FitConfig, dataset: Dataset, plan: Plan) -> Found:
    program = assemble(config, dataset)
    batches = endless_batches(program)
    begun = time.perf_counter()
    train(program, batches, 1)
    first = time.perf_counter() - begun
    rounds = time_rounds(
        lambda times: train(program, batches, times),
        repetitions=plan.repetitions,
        seconds=plan.seconds,
    )
    return {
        "images_per_second": config.schedule.batch_size / statistics.median(rounds),
        "slowest": config.schedule.batch_size / max(rounds),
        "fastest": config.schedule.batch_size / min(rounds),
        "first_step_seconds": first,
    }
