import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.train.saved import arrays
from train.learn.program import Program
from train.loop import loop
from train.loop.journal import Journal
from train.loop.loop import fit
from train.run.log import read_metrics
from train.system.errors import PreemptedError


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, dataset) -> None:
    """Forty examples, and no figures."""
    monkeypatch.setattr(loop, "load_dataset", lambda name, *, data_dir: dataset)
    monkeypatch.setattr(loop, "draw_run", lambda *_: None)


def train(out: Path, config, **options) -> list[tuple]:
    """Trains on two devices; returns what the lines of metrics say, the times left out."""
    fit(config, out=out, devices=2, **options)
    return lines(out)


def lines(out: Path) -> list[tuple]:
    times = ("images_per_second", "wall_seconds")
    return [
        tuple((name, value) for name, value in row.items() if name not in times)
        for row in read_metrics(out / "metrics.jsonl")
    ]


def test_steps_per_dispatch_change_no_line_and_no_bit(config, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    config = config.changed(log_every=3, checkpoint_every=4)
    assert train(one, config, steps_per_dispatch=1) == train(many, config, steps_per_dispatch=3)
    for ours, theirs in zip(arrays(many), arrays(one), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_everything_comes_when_it_is_due(config, tmp_path):
    config = config.changed(steps=7, evaluate_every=5, checkpoint_every=3)
    train(tmp_path / "run", config)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    logged = [(row["step"], row["split"]) for row in rows]
    trained = [(step, "train") for step in (2, 4, 5, 6, 7)]
    assert logged == sorted([*trained, (5, "test"), (7, "test")], key=lambda point: point[0])
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {"6", "7"} <= kept


def test_the_next_dispatch_is_sent_before_results_are_looked_at(config, tmp_path, monkeypatch):
    told = []
    send, take_in = Program.train, Journal.trained

    def sent(self, *arguments):
        told.append("sent")
        return send(self, *arguments)

    def trained(self, step, *arguments, **options):
        told.append(step)
        return take_in(self, step, *arguments, **options)

    monkeypatch.setattr(Program, "train", sent)
    monkeypatch.setattr(Journal, "trained", trained)
    config = config.changed(steps=4, evaluate_every=4)
    train(tmp_path / "run", config, steps_per_dispatch=1)
    assert told == ["sent", "sent", 1, "sent", 2, "sent", 3, 4]


def test_an_interrupted_run_has_told_all_it_did_and_goes_on(config, tmp_path, monkeypatch):
    config = config.changed(
        ema_decay=0.9, micro_batches=2, optimizer="lamb", clip_norm=1.0, warmup_steps=3
    )
    whole = train(tmp_path / "whole", config, steps_per_dispatch=1)
    send = Program.train

    def interrupted(self, *arguments):
        if int(self.state.step) == 5:
            raise KeyboardInterrupt
        return send(self, *arguments)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Program, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(out, config, steps_per_dispatch=1)
    assert lines(out) == [line for line in whole if dict(line)["step"] <= 5]
    assert (out / "checkpoints" / "4").is_dir()
    assert not (out / "summary.json").exists()
    assert train(out, config, resume=True) == whole
    for ours, theirs in zip(arrays(out), arrays(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on(config, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    config = config.changed(max_shift=1)
    train(whole, config, steps_per_dispatch=1)
    send = Program.train

    def interrupted(self, *arguments):
        metrics = send(self, *arguments)
        if int(self.state.step) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(Program, "train", interrupted)
        with pytest.raises(PreemptedError, match=r"asked to stop \(SIGTERM\): .* of step 3 is"):
            train(out, config, steps_per_dispatch=1)
    assert {path.name for path in (out / "checkpoints").iterdir()} >= {"2", "3"}
    assert not (out / "summary.json").exists()
    train(out, config, resume=True)
    for ours, theirs in zip(arrays(out), arrays(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_summary_says_how_long_the_devices_waited(config, tmp_path):
    train(tmp_path / "run", config)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 <= summary["device_idle_percent"] <= 100
    train(tmp_path / "short", config.changed(steps=1))
    summary = json.loads((tmp_path / "short" / "summary.json").read_text())
    assert summary["device_idle_percent"] is None


def test_a_run_ends_with_the_first_evaluation_that_is_good_enough(config, tmp_path, monkeypatch):
    accuracies = {3: 0.4, 6: 0.7, 9: 0.9, 12: 0.9}
    evaluate = Program.evaluate

    def rated(self):
        evaluation = evaluate(self)
        evaluation.metrics["accuracy"] = accuracies[int(self.state.step)]
        return evaluation

    monkeypatch.setattr(Program, "evaluate", rated)
    config = config.changed(steps=12, stop_at_accuracy=0.7)
    out = tmp_path / "run"
    ended = train(out, config)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["steps"], summary["stopped_at_accuracy"]) == (6, True)
    assert summary["test.accuracy"] == 0.7
    assert [
        row["step"] for row in read_metrics(out / "metrics.jsonl") if row["split"] == "test"
    ] == [
        3,
        6,
    ]
    assert "6" in {path.name for path in (out / "checkpoints").iterdir()}
    # It stays at its end when it is resumed.
    assert train(out, config, resume=True) == ended
    assert json.loads((out / "summary.json").read_text())["steps"] == 6

    whole = config.changed(stop_at_accuracy=0.95)
    train(tmp_path / "whole", whole)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert (summary["steps"], summary["stopped_at_accuracy"]) == (12, False)


def test_a_run_that_is_interrupted_stops_at_the_same_accuracy(config, tmp_path, monkeypatch):
    evaluate, send = Program.evaluate, Program.train

    def rated(self):
        evaluation = evaluate(self)
        evaluation.metrics["accuracy"] = int(self.state.step) / 12
        return evaluation

    def interrupted(self, *arguments):
        if int(self.state.step) == 5:
            raise KeyboardInterrupt
        return send(self, *arguments)

    monkeypatch.setattr(Program, "evaluate", rated)
    config = config.changed(steps=12, stop_at_accuracy=0.7)
    whole = train(tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(Program, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", config, steps_per_dispatch=1)
    assert train(tmp_path / "run", config, resume=True) == whole
    assert dict(whole[-1])["step"] == 9
