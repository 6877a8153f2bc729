import itertools
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from parity.bench import side_by_side
from parity.bench.contenders import CONTENDERS
from parity.bench.side_by_side import make_work, measure, summarise
from train.bench.timing import Rounds
from train.bench.worker import WorkerError


def test_ratios_are_taken_round_by_round(results):
    rows = {(row["contender"], row["work"]): row for row in summarise(results, "base")}
    ours = rows["ours", "train"]
    assert (ours["images_per_second"], ours["slowest"], ours["fastest"]) == (40, 20, 80)
    assert (ours["ratio_low"], ours["ratio"], ours["ratio_high"]) == (2, 4, 4)
    assert (ours["first_loss"], ours["peak_bytes"], ours["rounds"]) == (0.25, 2**30, 3)
    assert rows["base", "train"]["ratio"] == 1
    assert rows["broken", "train"]["failure"] == "no such device"


def test_without_its_baseline_there_is_no_ratio(results):
    row = summarise(results, "broken")[0]
    assert (row["ratio"], row["ratio_low"]) == (None, None)


def test_the_work_is_real_digits_at_the_paper_s_size():
    work = make_work(5, dtype="float32", iterations=3)
    assert work.images.shape == (5, 28, 28, 1)
    assert work.images.max() == 255
    assert work.labels.shape == (5,)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only contenders move on; the names of those that worked, in their order.

    A step takes a second, and three seconds more after the turn of another.
    """
    now, worked, losses = [0.0], [], iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def make(name):
        def train(times):
            now[0] += times + 3 * (worked[-1:] != [name])
            worked.append(name)
            return next(losses)

        return SimpleNamespace(
            device=name, train=train, forward=train, peak_bytes=lambda: len(worked)
        )

    def broken(work):
        raise RuntimeError("no compiler\nat all")

    for name in ("a", "b"):
        monkeypatch.setitem(CONTENDERS, name, lambda work, name=name: make(name))
    monkeypatch.setitem(CONTENDERS, "broken", broken)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return worked


@pytest.fixture
def workers(monkeypatch):
    """Workers in this process."""

    class Here:
        def __init__(self, function, *arguments):
            self._running = function(*arguments)

        def __enter__(self):
            return self._ask

        def __exit__(self, *_):
            self._running.close()

        def _ask(self, request=None):
            try:
                return self._running.send(request)
            except RuntimeError as error:
                raise WorkerError(str(error).splitlines()[0]) from error

    monkeypatch.setattr(side_by_side, "worker", Here)


def test_every_contender_has_its_turn_in_every_round(clock, workers, capsys):
    work = SimpleNamespace(batch_size=8)
    found = measure(("a", "broken", "b"), work, rounds=Rounds(3, 2.0), cores=1)
    a, broken, b = found
    assert broken.failure == "no compiler"
    assert (a.failure, b.failure) == (None, None)
    # What is slow after the turn of another does not count.
    assert a.seconds == b.seconds == {"train": [1.0] * 3, "forward": [1.0] * 3}
    assert a.found["device"] == "a"
    assert a.found["first_step_seconds"] == 4
    assert (a.found["first_loss"], b.found["first_loss"]) == (0, 2)
    # The first steps, how often each repeats, and rounds in which whoever was first is last: a b,
    # b a, a b.
    assert [name for name, _ in itertools.groupby(clock)] == [*"ab", *"ab", *"ab", *"ab"]
    assert len(clock) == 2 * (2 + 4 + 3 * 4)
    said = capsys.readouterr().err
    assert "batch 8: broken cannot run: no compiler" in said
    assert said.count("round") == 3


def test_a_contender_s_process_imports_its_own_framework_alone():
    program = (
        "import sys, parity.bench.side_by_side\n"
        "sys.exit(', '.join({'jax', 'torch'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert ended.stderr.strip() == ""


SIZES = {"conv_features": 4, "primary_types": 2, "decoder_hidden": [8]}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("capsjax", "float32"),
        ("torch-reference", "float32"),
        ("torch-fast", "bfloat16"),
    ],
)
def test_a_contender_trains_and_infers(name, dtype):
    import torch

    threads = torch.get_num_threads()
    contender = CONTENDERS[name](make_work(4, dtype=dtype, iterations=2, sizes=SIZES))
    first = contender.train(1)
    contender.forward(2)
    # Ten classes, each capsule short: 0.81 for the right one, and the reconstruction.
    assert 0.7 < first < 1
    assert contender.train(5) < first
    assert contender.device == "cpu"
    assert contender.peak_bytes() is None
    torch.set_num_threads(threads)
