"""How long a training takes to begin. No framework is imported here: that is a part of it."""

import contextlib
import functools
import importlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from train.bench.worker import worker
from train.config.fit_config import FitConfig

CACHE = "JAX_COMPILATION_CACHE_DIR"
PARTS = ("imports", "data", "initial values", "tracing", "compiling")
"""What comes before the first step, each alone. `fit` does some at once: they add up to more."""


def seconds_to_begin(fit: Callable[[Path], object]) -> float:
    """Seconds from the start of a process to its first line of metrics, nothing compiled before.

    `fit` is called there with the folder of the run, of which nothing remains; it can be pickled.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, CACHE: str(Path(folder, "programs"))},
            start_new_session=True,  # what it starts is killed with it
        )
        try:
            assert process.stdin is not None
            with process.stdin:
                pickle.dump(functools.partial(fit, run), process.stdin)
            metrics = run / "metrics.jsonl"
            while not (metrics.exists() and metrics.stat().st_size):
                if process.poll() is not None:
                    raise RuntimeError(f"it ended with code {process.returncode} at its start")
                time.sleep(0.005)
            return time.monotonic() - begun
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def seconds_of_parts(
    imports: str,
    config: FitConfig,
    data_dir: Path | None,
    devices: int | None,
    routings: Sequence[str],
) -> dict[str, float]:
    """Seconds that each of `PARTS` takes in a process of its own, nothing compiled before.

    `imports` is the module that `fit` imports; the other arguments are of that, too.

    Raises:
        UserError: as `fit` does of the same configuration, folder and number of devices.
    """
    with worker(_take_apart, imports, config, data_dir, devices, routings) as ask:
        return ask()


def _take_apart(
    imports: str,
    config: FitConfig,
    data_dir: Path | None,
    devices: int | None,
    routings: Sequence[str],
) -> Generator[dict[str, float], None, None]:
    os.environ[CACHE] = ""
    begun = [time.perf_counter()]
    importlib.import_module(imports)
    from train.learn.trainer import assemble
    from train.learn.user_routing import trust

    begun.append(time.perf_counter())
    for name in routings:
        trust(name)
    dataset = config.data.load(data_dir)
    begun.append(time.perf_counter())
    trainer = assemble(config, dataset, devices=devices)
    begun.append(time.perf_counter())
    lowered = trainer.lower()
    begun.append(time.perf_counter())
    lowered.compile()
    begun.append(time.perf_counter())
    taken = (after - before for before, after in itertools.pairwise(begun))
    yield dict(zip(PARTS, taken, strict=True))
