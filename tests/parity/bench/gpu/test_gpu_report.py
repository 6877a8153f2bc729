"""The whole report on a CPU, with networks so small that no figure means anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from parity.__main__ import main
from parity.bench.gpu.parts import PARTS

ROOT = Path(__file__).parents[3]

MINUTES = 20
"""Far more than it takes: what each part needs on a busy machine is not what is tested."""


def gpu_report(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "parity", "gpu-report", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu-report") / "out"
    return gpu_report("--tiny", "--minutes", MINUTES, "--out", out), out


@pytest.fixture(scope="module")
def report(ended):
    _, out = ended

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads((out / "report.json").read_text(), parse_constant=refuse)


@pytest.mark.slow
def test_every_part_comes_to_its_end(ended, report):
    process, _ = ended
    assert process.returncode == 0, process.stderr
    assert list(report["parts"]) == [part.name for part in PARTS]
    assert {name: part["failure"] for name, part in report["parts"].items()} == dict.fromkeys(
        report["parts"]
    )
    assert sum(part["seconds"] for part in report["parts"].values()) < 60 * MINUTES


@pytest.mark.slow
def test_every_figure_of_the_table_was_measured(ended, report):
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
    assert report["versions"]["jax"]
    assert report["parts"]["parity"]["found"]["tiny"]["passed"]


@pytest.mark.slow
def test_runs_are_kept_without_their_checkpoints(ended):
    _, out = ended
    runs = {run.name: run for run in (out / "runs").iterdir()}
    assert set(runs) == {"epoch-bfloat16", "probe-bfloat16", "recipe-bfloat16"}
    for run in runs.values():
        assert (run / "summary.json").exists()
        assert not (run / "checkpoints").exists()


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


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    ended = gpu_report("--tiny", "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
