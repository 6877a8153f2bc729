"""`fit --resume`, as a user meets it: a run goes on, or stays what it was."""

import json
import shutil
from pathlib import Path

import pytest

from tests.train.cli.conftest import TINY, fails
from train.__main__ import main
from train.run.checkpoint_files import Checkpoints
from train.run.folder import load_run

SHORT = ("--schedule", "constant", "--learning-rate", "0.002", *TINY)
"""With a schedule that a longer run shares."""


@pytest.fixture(scope="module")
def trained_short(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("short") / "run"
    arguments = ("--steps", "20", "--checkpoint-every", "10", *SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.report.figures.draw_run", lambda *_: None)
        assert main(["fit", "digits", "--out", str(out), *arguments]) == 0
    return out


@pytest.fixture
def short_run(trained_short, no_figures, tmp_path) -> Path:
    """A copy of a run of 20 steps."""
    return Path(shutil.copytree(trained_short, tmp_path / "run"))


def test_resuming_goes_without_a_recipe(short_run):
    assert main(["fit", "--resume", "--out", str(short_run), "--steps", "30"]) == 0
    assert json.loads((short_run / "summary.json").read_text())["steps"] == 30
    schedule = load_run(short_run).config.schedule
    assert (schedule.steps, schedule.batch_size) == (30, 16)


def test_a_result_is_recorded_by_the_name_of_its_run(short_run, tmp_path, monkeypatch):
    """So that runs of several recipes and seeds do not write over each other."""
    monkeypatch.setattr("train.study.records.ROOT", tmp_path)
    (short_run / "figures").mkdir()  # with them it has ended
    names = ("run", "other")
    shutil.copytree(short_run, tmp_path / "other")
    for name in names:
        out = f"{tmp_path / name}/"
        assert main(["fit", "--resume", "--out", out, "--record", "mine"]) == 0
    kept = [
        json.loads((tmp_path / "docs/results/mine" / f"fit-{name}.json").read_text())
        for name in names
    ]
    assert [each["config"]["batch_size"] for each in kept] == [16, 16]
    summary = json.loads((short_run / "summary.json").read_text())
    assert [each["summary"] for each in kept] == [summary, summary]


def test_a_run_that_has_ended_stays_what_it_was(short_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.study.records.ROOT", tmp_path)
    (short_run / "figures").mkdir()
    config = (short_run / "config.json").read_bytes()
    line = ["fit", "--resume", "--out", str(short_run), "--steps", "10", "--record", "mine"]
    assert main(line) == 0
    assert "has ended, so nothing is left to do" in capsys.readouterr().err
    assert (short_run / "config.json").read_bytes() == config
    kept = json.loads((tmp_path / "docs/results/mine/fit-run.json").read_text())
    assert (kept["config"]["steps"], kept["summary"]["steps"]) == (20, 20)


def test_the_speed_is_of_the_whole_run_not_of_what_was_resumed(short_run):
    """Of which there may be nothing left to train."""
    before = json.loads((short_run / "summary.json").read_text())
    assert main(["fit", "--resume", "--out", str(short_run)]) == 0  # its figures are missing
    after = json.loads((short_run / "summary.json").read_text())
    assert 0.5 < after["images_per_second"] / before["images_per_second"] < 2  # of a few steps


def test_resuming_a_finished_run_changes_nothing(short_run, capsys):
    (short_run / "figures").mkdir()

    def state():
        files = [path for path in short_run.rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    again = ["fit", "--out", str(short_run), "--resume"]
    before = state()
    capsys.readouterr()
    assert main(again) == 0
    assert state() == before
    out, err = capsys.readouterr()
    summary = json.loads((short_run / "summary.json").read_text())
    assert f"{summary['images_per_second']:.0f} images/s" in out
    assert f"note: {short_run} has ended, so nothing is left to do" in err

    (short_run / "summary.json").write_text('{"steps": "many"}')
    assert main(again) == 0
    after = json.loads((short_run / "summary.json").read_text())
    assert after["test.loss"] == summary["test.loss"]


def test_resuming_with_another_configuration_says_which_fields_differ(short_run, capsys):
    capsys.readouterr()
    arguments = ("--steps", "20", *SHORT, "--seed", "5", "--learning-rate", "0.5")
    message = fails(capsys, "fit", "digits", "--out", short_run, "--resume", *arguments)
    assert "seed (was 0, now 5); learning_rate (was 0.002, now 0.5)" in message


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(short_run, capsys):
    with Checkpoints(short_run / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [10, 20]
    for file in (short_run / "checkpoints" / "20").rglob("d/*"):
        file.write_bytes(b"damaged")
    assert (
        main(["fit", "digits", "--out", str(short_run), "--steps", "20", "--resume", *SHORT]) == 0
    )
    assert "Checkpoint 20" in capsys.readouterr().err
    assert (short_run / "damaged-checkpoint-20").is_dir()
    with Checkpoints(short_run / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [10, 20]
