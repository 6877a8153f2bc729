import json
import os
import time
from pathlib import Path

import pytest

from train.bench.start import PARTS, seconds_of_parts, seconds_to_begin
from train.presets import get_preset
from train.system.errors import UserError


def begin_late(run: Path) -> None:
    """Writes a first line after a while, and goes on for ever."""
    run.mkdir()
    (run / "metrics.jsonl").touch()
    time.sleep(0.5)
    (run / "metrics.jsonl").write_text("{}\n")
    time.sleep(600)


def test_what_counts_is_the_first_line_and_nothing_remains(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert 0.5 < seconds_to_begin(begin_late) < 60
    assert not list(tmp_path.iterdir())


def test_a_command_that_ends_before_it_begins_is_told():
    with pytest.raises(RuntimeError, match="ended with code 1 at its start"):
        seconds_to_begin(os.rmdir)  # of a folder that is not there


def test_bad_input_is_told_before_anything_is_timed(tmp_path):
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'none'}"):
        seconds_of_parts("train.loop.loop", get_preset("mnist"), tmp_path / "none", None, [])


@pytest.mark.parametrize("models", [[], ["capsnet", "aff_capsnet"]])
def test_the_start_of_a_recipe(python_m_train, tmp_path, models):
    """Of `fit` as it is: its processes import and compile for themselves."""
    sizes = ("conv_features=4", "conv_kernel=3", "primary_kernel=3")
    small = ("--model-options", *sizes, "--repetitions", "1")
    small += ("--models", ",".join(models)) if models else ()
    done = python_m_train("bench", "digits", "--start", *small, "--json", tmp_path / "start.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "start.json").read_text())["rows"]
    assert [row.pop("model") for row in rows] == (models or [None])
    for row in rows:
        assert row.keys() == {"start", *PARTS}
        assert min(row.values()) > 0
    heads = ["to the first line of metrics, s", *(f"{name}, s" for name in PARTS)]
    assert f"| {' | '.join(['network'] * bool(models) + heads)} |" in done.stdout
    assert [f"| {name} |" in done.stdout for name in models] == [True] * len(models)
