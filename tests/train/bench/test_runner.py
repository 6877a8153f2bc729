"""The command end to end, and what it says where it cannot."""

import json
import re

import pytest

from train.__main__ import main
from train.bench import runner
from train.bench.memory import DoesNotFitError
from train.bench.points import Point
from train.system.errors import UserError

TINY = (
    *("--model-options", "conv_features=4", "conv_kernel=1", "primary_types=2"),
    *("primary_kernel=1", "decoder_hidden=[8]"),
    *("--repetitions", "2", "--seconds", "0.01"),
)


@pytest.mark.slow
def test_a_benchmark_end_to_end(python_m_train, tmp_path):
    ended = python_m_train(
        *("bench", "--batch-sizes", "4", "--iterations", "2", *TINY),
        *("--json", tmp_path / "b.json", "--plot", tmp_path / "figures"),
        devices=2,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    rows = found["rows"]
    assert [(row["batch_size"], row["iterations"]) for row in rows] == [(4, 2)]
    for row in rows:
        assert row["failure"] is None
        assert row["images_per_second"] == pytest.approx(4 / row["step_seconds"])
        assert row["slowest"] <= row["images_per_second"] <= row["fastest"]
        assert row["peak_bytes"] > 10**8
        assert [part["seconds"] > 0 for part in row["parts"]] == [True] * 5
    assert rows[0]["memory"]["temporaries"] > 0
    assert found["machine"]["devices"] == 2
    assert found["machine"]["ceilings"]["memory_bytes"] > 0
    assert found["data"] == {"name": "digits", "synthetic": False}
    assert found["growth"] == []

    assert ended.stdout.count("| 4 | float32 |") == 4
    assert "[1/1] batch 4, float32, 2 iterations" in ended.stderr
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {"parts.png"}


@pytest.fixture
def memory_for(monkeypatch):
    """Measures nothing; batches above the largest have no memory, odd ones are bad input."""
    tried = []

    def limit(largest):
        def measure(function, config, *_, **__):
            tried.append((config.schedule.batch_size, config.model.dtype))
            if config.schedule.batch_size % 2:
                raise UserError("odd")
            if config.schedule.batch_size > largest:
                raise DoesNotFitError("no room")
            return {"step_seconds": 1.0}

        monkeypatch.setattr(runner, "in_own_process", measure)
        return tried

    return limit


def test_what_cannot_run_is_told_and_larger_batches_are_not_tried(memory_for, config, dataset):
    tried = memory_for(4)
    points = [Point(b, d, 3) for d in ("float32", "bfloat16") for b in (1, 2, 4, 8, 16, 32)]
    rows = runner._measure(config, dataset, points, None, {})
    assert tried == [(b, d) for d in ("float32", "bfloat16") for b in (1, 2, 4, 8)]
    assert [row["failure"] for row in rows[:4]] == ["odd", None, None, "no room"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "unknown preset 'digit', choose from: affnist"),
        (["--dtypes", "float8"], "unknown dtype 'float8', choose from: float32"),
        (["--dtypes", "float64"], "float64 needs JAX's x64 mode"),
        (["--json", "nowhere/b.json"], "cannot be written: nowhere is no folder"),
        (["--feed", "--devices", "9"], "--devices is 9, but this machine has 1 to 8"),
        (["--feed", "--batch-size", "20000"], "larger than the training set of 1438"),
        (
            ["--predict-memory", "1GB", "--model-options", "colour=red"],
            "this network cannot be made: .*colour",
        ),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.strip().splitlines()) == 1
    assert re.search(message, said.err), said.err
