import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from parity.__main__ import main
from parity.bench import benchmark
from parity.bench.benchmark import cells, draw
from parity.bench.contenders import CONTENDERS
from parity.bench.side_by_side import summarise
from parity.cli.bench import Name
from train.bench.report import table

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
    # The same loss, up to different initial values: ten classes, each capsule short.
    losses = [rows[c, "train"]["first_loss"] for c in ("capsjax", "torch-fast")]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    assert (tmp_path / "b.png").exists()
    assert ended.stdout.count("| 2 | ") == 4


def test_the_table_has_a_line_for_everything_measured(results):
    lines = table([cells(row, "base") for row in summarise(results, "base")]).splitlines()
    assert len(lines) == 2 + 8
    assert lines[0].endswith("| times base | peak memory | first step |")
    assert lines[2] == (
        "| 8 | training step | ours | 40.0 (20.0 to 80.0) | 4.00 (2.00 to 4.00) | 1.07 GB | 1.5 s |"
    )
    assert "cannot run: no such device" in lines[7]
    assert cells(summarise(results, "broken")[0], "broken")["times broken"] == "-"


def test_the_chart_has_a_bar_for_everything_that_ran(results):
    train, forward = draw(summarise(results, "base"), "title").axes
    ours, base = (bars.patches for bars in train.containers if hasattr(bars, "patches"))
    assert [bar.get_height() for bar in ours] == [40]
    assert [bar.get_height() for bar in base] == [10, 20]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in base]
    assert [round(middle, 6) for middle in middles] == [0.2, 1.2]
    assert [text.get_text() for text in train.get_xticklabels()] == ["batch 8", "batch 16"]
    assert forward.get_title() == "forward pass"


def test_every_contender_has_a_name_on_the_command_line():
    assert tuple(CONTENDERS) == get_args(Name)


def test_the_command_passes_on_what_it_is_given(results, monkeypatch, tmp_path, capsys):
    asked = []

    def measure(contenders, work, *, rounds, cores):
        asked.append((contenders, work.batch_size, work.dtype, work.iterations, rounds, cores))
        return results[:2]

    monkeypatch.setattr(benchmark, "measure", measure)
    arguments = ["--contenders", "capsjax", "--batch-size", "8", "--repetitions", "3"]
    arguments += ["--seconds", "0.5", "--dtype", "bfloat16", "--routing-iterations", "2"]
    arguments += ["--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "chart")]
    assert main(["bench", *arguments, "--cores", "1"]) == 0
    assert asked == [(["capsjax"], 8, "bfloat16", 2, benchmark.Rounds(3, 0.5), 1)]
    found = json.loads((tmp_path / "b.json").read_text())
    assert (found["dtype"], found["machine"]["cores"], len(found["rows"])) == ("bfloat16", 1, 4)
    assert (tmp_path / "chart").exists()
    assert "| 8 | training step | ours |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contenders", "tensorflow"], "invalid choice: 'tensorflow' (choose from"),
        (["--batch-size", "0"], "--batch-size is 0, but must be more than 0"),
        (["--repetitions", "0"], "'0' is not a whole number of at least 1"),
        (["--cores", "4096"], "--cores is 4096, but there are"),
        (["--json", "nowhere/b.json"], "cannot be written: nowhere is no folder"),
    ],
)
def test_bad_input(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
