import json
import os
import time
from pathlib import Path

import pytest

from train.__main__ import main
from train.bench import benchmark
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


SMALL = ["--repetitions", "1", "--model-options", "conv_features=4", "conv_kernel=3"]
HEADS = ["to the first line of metrics, s", *(f"{name}, s" for name in PARTS)]


def test_the_start_of_a_recipe(python_m_train, tmp_path):
    """Of `fit` as it is: its processes import and compile for themselves."""
    file = tmp_path / "start.json"
    done = python_m_train("bench", "digits", "--start", *SMALL, "--json", file)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(file.read_text())["rows"]
    assert row.pop("model") is None
    assert row.keys() == {"start", *PARTS}
    assert min(row.values()) > 0
    assert f"| {' | '.join(HEADS)} |" in done.stdout


def test_the_start_of_each_of_several_networks(monkeypatch, capsys):
    asked, validation = [], []
    monkeypatch.setattr(benchmark, "seconds_to_begin", lambda fit: asked.append(fit) or 9.0)
    monkeypatch.setattr(
        benchmark,
        "seconds_of_parts",
        lambda imports, config, *_: (
            validation.append(config.data.validation)
            or dict.fromkeys(PARTS, {"cnn": 1.5}.get(config.model.name, 2.5))
        ),
    )
    small = ["--repetitions", "1", "--models", "aff_capsnet,cnn"]
    assert main(["bench", "digits", "--start", *small]) == 0
    assert [fit.args[1]["model"] for fit in asked] == ["aff_capsnet", "cnn"]
    assert validation == [None, None]  # as in `fit`, which refuses a batch that is larger
    printed = capsys.readouterr().out
    assert f"| {' | '.join(['network', *HEADS])} |" in printed
    for name, part in {"aff_capsnet": "2.50", "cnn": "1.50"}.items():
        cells = [f"{each} ({each} to {each})" for each in ("9.00", *[part] * len(PARTS))]
        assert f"| {name} | {' | '.join(cells)} |" in printed
