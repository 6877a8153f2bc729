import json
import subprocess
import sys
from pathlib import Path

import pytest

from parity.__main__ import main

ROOT = Path(__file__).parents[3]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "parity", "bench", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
def test_a_benchmark_end_to_end(tmp_path):
    ended = bench(
        *("--batch-size", 2, "--repetitions", 2, "--seconds", 0.01),
        *("--contenders", "capsjax", "torch-fast"),
        *("--json", tmp_path / "b.json", "--plot", tmp_path / "b.png"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--contenders", "tensorflow"],
            "there is no contender 'tensorflow', choose from: capsjax",
        ),
        (["--batch-size", "0"], "--batch-size is 0, but must be more than 0"),
        (["--cores", "4096"], "--cores is 4096, but there are"),
        (["--json", "nowhere/b.json"], "cannot be written: nowhere is no folder"),
    ],
)
def test_bad_input(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
