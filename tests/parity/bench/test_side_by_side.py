import itertools
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from parity.bench import side_by_side
from parity.bench.contenders import CONTENDERS, Contender
from parity.bench.side_by_side import FEW, measure, summarise
from parity.bench.work import make_work
from train.bench.timing import Rounds
from train.bench.worker import WorkerError


def test_ratios_are_taken_round_by_round(results):
    rows = {(row["contender"], row["work"]): row for row in summarise(results[:4])}
    base = rows["base", "train"]
    assert (base["images_per_second"], base["slowest"], base["fastest"]) == (10, 10, 20)
    assert (base["ratio_low"], base["ratio"], base["ratio_high"]) == (2, 4, 4)
    assert (base["first_loss"], base["peak_bytes"], base["rounds"]) == (0.25, 2**31, 3)
    assert (base["model"], base["dtype"], base["batch_size"]) == ("capsnet", "float32", 8)
    assert rows["capsjax", "train"]["ratio"] == 1
    assert rows["broken", "train"]["failure"] == "no such device"


def test_where_capsjax_did_not_run_there_is_no_ratio(results):
    row = summarise(results)[-1]
    assert (row["batch_size"], row["ratio"], row["ratio_low"]) == (16, None, None)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only contenders move on: the names of those that worked, and their makers.

    A step takes a second, and three seconds more after the turn of another.
    """
    now, worked, losses = [0.0], [], iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def make(name):
        def train(times):
            now[0] += times + 3 * (worked[-1:] != [name])
            worked.append(name)
            return next(losses)

        return Contender(name, train, train, lambda: len(worked), prepared={"tracing_seconds": 3})

    def broken(work):
        raise RuntimeError("no compiler\nat all")

    makers = {name: lambda work, name=name: make(name) for name in ("a", "b")}
    makers["broken"] = broken
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return worked, makers


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
    work = SimpleNamespace(model="capsnet", dtype="float32", batch_size=8)
    worked, makers = clock
    makers = {name: makers[name] for name in ("a", "broken", "b")}
    found = measure(makers, work, rounds=Rounds(3, 2.0), cores=1)
    a, broken, b = found
    assert broken.failure == "no compiler"
    assert (a.failure, b.failure) == (None, None)
    # What is slow after the turn of another does not count.
    assert a.seconds == b.seconds == {"train": [1.0] * 3, "forward": [1.0] * 3}
    assert a.found["device"] == "a"
    assert a.found["tracing_seconds"] == 3
    assert a.found["first_step_seconds"] == 3 + 4
    assert (a.found["first_loss"], b.found["first_loss"]) == (0, 2)
    # The first steps, how often each repeats, and rounds in which whoever was first is last: a b,
    # b a, a b.
    assert [name for name, _ in itertools.groupby(worked)] == [*"ab", *"ab", *"ab", *"ab"]
    assert len(worked) == 2 * (2 + 4 + 3 * 4)
    said = capsys.readouterr().err
    assert "capsnet, float32, batch 8: broken cannot run: no compiler" in said
    assert said.count("round") == 3


def test_one_that_is_far_slower_takes_part_in_a_few_rounds(clock, workers):
    _, makers = clock
    work = SimpleNamespace(model="capsnet", dtype="float32", batch_size=8)

    def slower(work):
        of_a = makers["a"](work)

        def five_times(times):
            of_a.train(5 * times)

        return of_a._replace(train=five_times, forward=five_times)

    found = measure({"a": makers["a"], "c": slower}, work, rounds=Rounds(5, 1.0), cores=1)
    assert [m.seconds["train"] for m in found] == [[1.0] * 5, [5.0] * FEW]
    assert [len(m.seconds["forward"]) for m in found] == [5, FEW]


def test_a_contender_s_process_imports_its_own_framework_alone():
    program = (
        "import sys, parity.bench.side_by_side\n"
        "sys.exit(', '.join({'jax', 'torch'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert ended.stderr.strip() == ""


def test_one_as_long_as_a_turn_is_taken_once(clock, workers):
    work = SimpleNamespace(model="capsnet", dtype="float32", batch_size=8)
    worked, makers = clock
    (a,) = measure({"a": makers["a"]}, work, rounds=Rounds(3, 0.5), cores=1)
    assert a.seconds == {"train": [1.0] * 3, "forward": [1.0] * 3}
    assert len(worked) == 2 * (1 + 2 + 3)


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
    options = {"conv_features": 4, "primary_types": 2, "decoder_hidden": [8]}
    work = make_work("capsnet", 4, dtype=dtype, iterations=2, options=options)
    contender = CONTENDERS[name](work)
    first = contender.train(1)
    contender.forward(2)
    assert 0 < contender.train(5) < first
    assert contender.device == "cpu"
    assert contender.peak_bytes() is None
    torch.set_num_threads(threads)
