"""`parity check` on the device, as much of it as there is time for."""

import time
from collections.abc import Iterator
from typing import Any

from parity.bench.gpu.plan import Found, Task
from parity.check.runner import check
from parity.check.subjects import find_subject
from train.system.progress import each

_SHARE = 0.6
"""Of the time: no case is begun after that. What a GPU computes besides comes after the cases."""


def measure(task: Task) -> Iterator[Found]:
    """Finds, under the name of each network, what was compared and whether it held.

    That is `passed`, the number of `comparisons` and of those `beyond` their limit, the
    `first_difference`, `cases` begun and `cases_there_are`.
    """
    plan = task.plan
    for number, size in enumerate(plan.parity_sizes):
        until = time.monotonic() + _SHARE * task.left() / (len(plan.parity_sizes) - number)
        counted = {"cases": 0, "cases_there_are": 0}

        def in_time(
            jobs: Iterator, total: int, until: float = until, counted: Found = counted
        ) -> Iterator[Any]:
            counted["cases_there_are"] = total
            for job in each(jobs, total, lambda job: job[0]):
                if counted["cases"] == plan.parity_cases or time.monotonic() > until:
                    return
                counted["cases"] += 1
                yield job

        subject = find_subject("layout", "reference", (size,))
        result = check(subject, data_dir=task.data_dir, progress=in_time)
        first = result.first_difference
        yield {
            size: {
                "passed": result.passed,
                "comparisons": len(result.comparisons),
                "beyond": sum(not comparison.held for comparison in result.comparisons),
                "first_difference": None if first is None else f"{first.stage} ({first.case})",
                **counted,
            }
        }
