import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from parity.__main__ import main
from parity.bench import benchmark
from parity.bench.contenders import CONTENDERS
from parity.cli.bench import Name
from train.study import records

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_benchmark_in_its_processes(tmp_path):
    arguments = [
        *("--batch-size", 2, "--repetitions", 2, "--seconds", 0.01),
        *("--contenders", "capsjax", "torch-fast"),
        *("--json", tmp_path / "b.json", "--plot", tmp_path / "b.png"),
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "parity", "bench", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / "b.json").read_text())
    rows = {(row["contender"], row["work"]): row for row in result["rows"]}
    assert set(rows) == {(c, w) for c in ("capsjax", "torch-fast") for w in ("train", "forward")}
    for row in rows.values():
        assert row["failure"] is None
        assert row["rounds"] == 2
        assert row["images_per_second"] > 0
        assert row["peak_bytes"] > 1e8
    # A step of the paper's network on a 28x28 image; the gradient takes twice the forward pass.
    assert 1.1e9 < rows["capsjax", "train"]["flops_per_image"] < 1.3e9
    assert (tmp_path / "b.png").exists()
    assert ended.stdout.count("| `capsnet` | float32 | 2 | ") == 2


def test_every_contender_has_a_name_on_the_command_line():
    assert tuple(CONTENDERS) == get_args(Name)


@pytest.fixture
def measured(results, monkeypatch):
    """What `measure` was asked for; it finds what the fixture `results` has at 8 images."""
    asked = []

    def measure(contenders, work, *, rounds, cores):
        asked.append((list(contenders), work.model, work.batch_size, work.dtype, rounds, cores))
        return results[:4]

    def in_own_process(function, *arguments):
        machine = {"device_kind": "cpu", "ceilings": {"matrix_flops": {"float32": 8e9}}}
        return machine if function is benchmark._ceilings else {"train": 1e8, "forward": 1e7}

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark, "in_own_process", in_own_process)
    return asked


def test_the_command_passes_on_what_it_is_given(measured, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    arguments = ["--contenders", "capsjax", "--batch-size", "8", "--repetitions", "3"]
    arguments += ["--seconds", "0.5", "--dtype", "bfloat16", "float32", "--cores", "1"]
    arguments += ["--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "chart")]
    arguments += ["--model", "sr_capsnet", "cnn", "--record", "mine"]
    assert main(["bench", *arguments]) == 0
    assert measured == [
        (["capsjax"], model, 8, dtype, benchmark.Rounds(3, 0.5), 1)
        for model in ("sr_capsnet", "cnn")
        for dtype in ("bfloat16", "float32")
    ]
    found = json.loads((tmp_path / "b.json").read_text())
    assert (found["machine"]["cores"], len(found["rows"])) == (1, 4 * 8)
    assert found["rows"][0]["flops_per_image"] == 1e8
    assert (tmp_path / "chart").exists()
    printed = capsys.readouterr().out
    assert "| `capsnet` | float32 | 8 | 40.0 | 2.0 | 10.0 | fails |" in printed
    kept = json.loads((tmp_path / "docs" / "results" / "mine" / "bench.json").read_text())
    assert kept["command"].startswith("python -m parity bench --contenders capsjax")
    page = records.render("mine")
    assert page.startswith("\n`python -m parity bench --contenders capsjax")
    assert "| `capsnet` | float32 | 8 |" in page


def test_what_is_named_twice_is_measured_once(measured):
    assert main(["bench", "--model", "cnn", "capsnet", "cnn", "--batch-size", "8", "8"]) == 0
    everyone = ["capsjax", "torch-reference", "torch-fast"]
    assert [asked[:3] for asked in measured] == [(everyone, n, 8) for n in ("cnn", "capsnet")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contenders", "tensorflow"], "invalid choice: 'tensorflow' (choose from"),
        (["--model", "capsnett"], "unknown model 'capsnett' (did you mean capsnet?), choose from"),
        (["--model", "cnn", "--routing-iterations", "2"], "cnn has no routing iterations: leave"),
        (["--output", "0"], "--output is of a module of yours: name that with --against."),
        (
            ["--model", "cnn", "capsnet", "--against", "net.py:Net"],
            "--against is beside one network: name one with --model.",
        ),
        (["--record", "../up"], "--record is '../up', but must be a name"),
        (["--batch-size", "0"], "--batch-size is 0, but must be more than 0"),
        (["--repetitions", "0"], "'0' is not a whole number of at least 1"),
        (["--cores", "4096"], "--cores is 4096, but there are"),
        (["--json", "nowhere/b.json"], "cannot be written: nowhere is no folder"),
    ],
)
def test_bad_input(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
