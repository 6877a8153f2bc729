"""The report: its parts in turn, as made up; and the whole of it in a dry run on a CPU."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from parity.__main__ import main
from parity.bench.gpu import report as report_module
from parity.bench.gpu.plan import tiny
from parity.bench.gpu.report import PARTS, Part, report
from train.bench.worker import WorkerError

ROOT = Path(__file__).parents[4]

MINUTES = 20
"""Far more than it takes: what each part needs on a busy machine is not what is tested."""


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def read(out):
    return json.loads((out / "report.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu-report") / "out"
    arguments = ("gpu-report", "--tiny", "--minutes", MINUTES, "--out", out)
    process = subprocess.run(
        [sys.executable, "-m", "parity", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
    )
    return process, out


@pytest.mark.slow
def test_every_part_comes_to_its_end(ended):
    process, out = ended
    assert process.returncode == 0, process.stderr
    parts = read(out)["parts"]
    assert list(parts) == [part.name for part in PARTS]
    assert [part["failure"] for part in parts.values()] == [None] * len(PARTS)
    assert sum(part["seconds"] for part in parts.values()) < 60 * MINUTES


@pytest.mark.slow
def test_every_figure_of_the_table_was_measured(ended):
    process, out = ended
    table = (out / "report.md").read_text()
    assert process.stdout == table
    failed = [line for line in table.splitlines() if "failed" in line]
    assert all("implementation 'pallas' runs on a TPU or GPU alone" in line for line in failed)
    for figure in (
        "training, bfloat16, best batch (batch 16, routing",
        "training, bfloat16, share of the rate of matrix products",
        "training, bfloat16, capsjax (batch 16) / fastest PyTorch (torch-fast, batch 16)",
        "training, bfloat16, batch 16, capsjax / torch-reference",
        "an epoch of digits in fit, bfloat16, batch 16, evaluation apart",
        "routing, bfloat16, batch 2, xla, forward and backward",
        "routing, bfloat16, batch 2, recompute, forward",
        "largest batch that trains, bfloat16, routing",
        "memory of a training step for an image, bfloat16, routing xla",
        "parity check, tiny network, float32: comparisons within their limits",
        "test error of fit digits, bfloat16",
    ):
        assert f"| {figure}" in table
    found = read(out)
    assert found["versions"]["jax"]
    assert found["parts"]["parity"]["found"]["tiny"]["passed"]


@pytest.mark.slow
def test_runs_are_kept_without_their_checkpoints(ended):
    _, out = ended
    runs = {run.name: run for run in (out / "runs").iterdir()}
    assert set(runs) == {"epoch-bfloat16", "probe-bfloat16", "recipe-bfloat16"}
    for run in runs.values():
        assert (run / "summary.json").exists()
        assert not (run / "checkpoints").exists()


@pytest.fixture
def here(monkeypatch):
    """Parts are done in this process, within any time; the seconds that each was given."""
    given = []

    class Here:
        def __init__(self, function, measure, task):
            self._task, self._measure = task, measure

        def __enter__(self):
            return self._measure(self._task)

        def __exit__(self, *_):
            pass

    def within(seconds, values):
        given.append(seconds)
        yield from values

    monkeypatch.setattr(report_module, "worker", Here)
    monkeypatch.setattr(report_module, "within", within)
    return given


def test_parts_that_fail_leave_the_others(here, tmp_path, capsys):
    written = []

    def first(task):
        yield {"rate": 1.0, "share": [math.inf]}
        written.append(read(task.out)["parts"]["training"])
        error = WorkerError("KeyError: 'x'")
        error.add_note("its traceback")
        raise error

    def second(task):
        yield {"rate": task.found["training"]["rate"] + 1, "left": task.left() > 0}

    parts = [Part("training", first, 3.0, "python -m train fit"), Part("b", second, 1.0)]
    code = report(tiny(), out=tmp_path, data_dir=None, minutes=1, arguments=["gpu"], parts=parts)
    assert code == 1
    found = read(tmp_path)
    assert (written[0]["found"], written[0]["failure"]) == ({"rate": 1.0, "share": [None]}, None)
    assert found["parts"]["training"]["failure"] == "KeyError: 'x'"
    assert found["parts"]["b"]["found"] == {"rate": 2.0, "left": True}
    assert found["command"] == "python -m parity gpu"
    # Of a minute less the reserve three quarters, then all that is left.
    assert 40 < here[0] < 0.75 * 55 < here[1] < 55
    said = capsys.readouterr()
    assert "its traceback\ntraining failed: KeyError: 'x'" in said.err
    assert said.out == (tmp_path / "report.md").read_text()
    assert "- training alone: `python -m train fit`" in said.out
    assert "| training | failed: KeyError: 'x' |  |" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes is 0.0, but must be more than 0."),
        (["--minutes", "nan"], "--minutes is nan, but must be more than 0."),
        (["--data-dir", "nowhere"], "--data-dir nowhere is no folder"),
    ],
)
def test_bad_input(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["gpu-report", "--tiny", "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["gpu-report", "--tiny", "--out", str(tmp_path / "out")]) == 2
    assert "out cannot be written" in capsys.readouterr().err
