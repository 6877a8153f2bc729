import errno
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.train.saved import arrays
from train.learn.trainer import Trainer
from train.loop.loop import fit
from train.loop.profiling import Profiler
from train.report.evaluate import evaluate
from train.run.log import Log, read_metrics
from train.system.errors import PreemptedError, UserError

pytestmark = pytest.mark.usefixtures("tiny_runs")


@pytest.fixture
def config(config):
    """A constant learning rate, so that runs of any length take the same steps."""
    return config.changed(schedule="constant")


def train(out: Path, config, **options) -> list[tuple]:
    """Trains on two devices; returns what the lines of metrics say, the times left out.

    There is a step in a dispatch if nothing else is asked for.
    """
    fit(config, out=out, devices=2, **{"steps_per_dispatch": 1, **options})
    times = ("images_per_second", "wall_seconds")
    return [
        tuple((name, value) for name, value in row.items() if name not in times)
        for row in read_metrics(out / "metrics.jsonl")
    ]


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def checkpoints(out: Path) -> set[str]:
    return {path.name for path in (out / "checkpoints").iterdir()}


def assert_same_state(ours: Path, theirs: Path) -> None:
    for mine, expected in zip(arrays(ours), arrays(theirs), strict=True):
        np.testing.assert_array_equal(mine, expected)


def before_step(step: int, act):
    """`Trainer.train`, before which something happens when so many steps are taken."""
    send = Trainer.train

    def train(self, batches, **options):
        if int(self.state.step) == step:
            act()
        return send(self, batches, **options)

    return train


def interrupt():
    raise KeyboardInterrupt


def test_steps_per_dispatch_change_no_line_and_no_bit(config, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    config = config.changed(log_every=3, checkpoint_every=4)
    assert train(one, config) == train(many, config, steps_per_dispatch=3)
    assert_same_state(many, one)


def test_everything_comes_when_it_is_due(config, tmp_path):
    out = tmp_path / "run"
    train(out, config.changed(steps=7, evaluate_every=5, checkpoint_every=3))
    rows = read_metrics(out / "metrics.jsonl")
    logged = [(row["step"], row["split"]) for row in rows]
    trained = [(step, "train") for step in (2, 4, 5, 6, 7)]
    looked = [(5, "validation"), (7, "validation"), (7, "test")]
    assert logged == sorted([*trained, *looked], key=lambda point: point[0])
    assert {"6", "7"} <= checkpoints(out)
    assert "device_idle_percent" not in summary(out)
    assert not (out / "profile").exists()


def test_the_next_dispatch_is_sent_before_results_are_looked_at(config, tmp_path, monkeypatch):
    order = []
    send, take_in = Trainer.train, Log.trained

    def sent(self, *arguments, **options):
        order.append("sent")
        return send(self, *arguments, **options)

    def trained(self, step, *arguments, **options):
        order.append(step)
        return take_in(self, step, *arguments, **options)

    monkeypatch.setattr(Trainer, "train", sent)
    monkeypatch.setattr(Log, "trained", trained)
    train(tmp_path / "run", config.changed(steps=4, evaluate_every=4))
    assert order == ["sent", "sent", 1, "sent", 2, "sent", 3, 4]


def test_an_interrupted_run_has_written_all_it_did_and_goes_on(config, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    config = config.changed(
        ema_decay=0.9, micro_batches=2, optimizer="lamb", clip_norm=1.0, warmup_steps=3
    )
    lines = train(whole, config)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", before_step(5, interrupt))
        with pytest.raises(KeyboardInterrupt):
            train(out, config)
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [2, 3, 3, 4]
    assert "4" in checkpoints(out)
    assert not (out / "summary.json").exists()
    assert train(out, config, resume=True, steps_per_dispatch=3) == lines
    assert_same_state(out, whole)


def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on(config, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    config = config.changed(max_shift=1)
    train(whole, config)
    with monkeypatch.context() as patch:
        ask = before_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(Trainer, "train", ask)
        with pytest.raises(PreemptedError, match=r"asked to stop \(SIGTERM\): .* of step 3 is"):
            train(out, config)
    assert checkpoints(out) >= {"2", "3"}
    assert not (out / "summary.json").exists()
    train(out, config, resume=True)
    assert_same_state(out, whole)


def test_a_run_that_is_asked_to_stop_after_its_last_step_writes_its_result(
    config, tmp_path, monkeypatch
):
    out, score = tmp_path / "run", Trainer.score

    def before_the_test(act):
        def scored(self, split):
            if split is self.dataset.test:
                act()
            return score(self, split)

        monkeypatch.setattr(Trainer, "score", scored)

    before_the_test(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(out, config)
    assert not (out / "summary.json").exists()
    before_the_test(lambda: os.kill(os.getpid(), signal.SIGTERM))
    # In a process that goes on to other runs, these do not begin.
    with pytest.raises(PreemptedError, match=r"asked to stop \(SIGTERM\): the run has ended, and"):
        train(out, config, resume=True)
    assert "test.accuracy" in summary(out)


def test_a_run_has_a_result_when_it_has_all_of_its_figures(config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    out, drawn = tmp_path / "run", []
    monkeypatch.setattr("train.report.figures.draw_run", full)
    with pytest.raises(UserError, match="No space left"):
        train(out, config)
    assert not (out / "summary.json").exists()
    monkeypatch.setattr("train.report.figures.draw_run", lambda *_: drawn.append(out))
    train(out, config, resume=True)
    assert drawn
    assert "test.accuracy" in summary(out)


def test_a_run_ends_with_the_first_evaluation_that_is_good_enough(config, tmp_path, monkeypatch):
    score = Trainer.score

    def rated(self, split):
        scores = score(self, split)
        scores.metrics["accuracy"] = int(self.state.step) / 10
        return scores

    monkeypatch.setattr(Trainer, "score", rated)
    config = config.changed(steps=12, stop_at_accuracy=0.6)
    out = tmp_path / "run"
    ended = train(out, config)
    assert (summary(out)["steps"], summary(out)["stopped_at_accuracy"]) == (6, True)
    assert summary(out)["validation.accuracy"] == 0.6
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "validation"] == [3, 6]
    assert "6" in checkpoints(out)
    # It stays at its end when it is resumed.
    assert train(out, config, resume=True) == ended
    assert summary(out)["steps"] == 6

    # It is the same end after an interruption.
    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", before_step(5, interrupt))
        with pytest.raises(KeyboardInterrupt):
            train(other, config)
    assert train(other, config, resume=True) == ended

    whole = tmp_path / "whole"
    train(whole, config.changed(steps=9, stop_at_accuracy=0.95))
    assert (summary(whole)["steps"], summary(whole)["stopped_at_accuracy"]) == (9, False)


def test_a_run_ends_when_it_has_not_improved_for_long(config, tmp_path, monkeypatch):
    """The best evaluation is the second; the one after next is the second that is no better."""
    score, rates = Trainer.score, {3: 0.2, 6: 0.5, 9: 0.5, 12: 0.4, 15: 0.9}

    def rated(self, split):
        scores = score(self, split)
        scores.metrics["accuracy"] = rates[int(self.state.step)]
        return scores

    monkeypatch.setattr(Trainer, "score", rated)
    config, out = config.changed(steps=15, patience=2), tmp_path / "run"
    ended = train(out, config)
    assert (summary(out)["steps"], summary(out)["validation.accuracy"]) == (12, 0.4)
    assert (summary(out)["stopped_by_patience"], summary(out)["stopped_at_accuracy"]) == (
        True,
        False,
    )
    # It stays at its end when it is resumed, and is at the same one after an interruption.
    assert train(out, config, resume=True) == ended
    other = tmp_path / "other"
    for step in (7, 11):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train", before_step(step, interrupt))
            with pytest.raises(KeyboardInterrupt):
                train(other, config, resume=True)
    assert train(other, config, resume=True) == ended
    # With more patience it goes on, as if it had had that before.
    train(out, config.changed(patience=3), resume=True)
    assert (summary(out)["steps"], summary(out)["stopped_by_patience"]) == (15, False)
    with pytest.raises(UserError, match="--patience looks at validation images, and none"):
        train(tmp_path / "none", config.changed(validation=0))


def test_the_best_checkpoint_is_the_best_on_validation_images(config, tmp_path, monkeypatch):
    # The best on the validation images is the first, and the best on the test images the last.
    score, looked = Trainer.score, []

    def rated(self, split):
        scores, step = score(self, split), int(self.state.step)
        is_test = split is self.dataset.test
        looked.append((step, "test" if is_test else "validation"))
        scores.metrics["accuracy"] = step / 20 if is_test else 1 - step / 20
        return scores

    monkeypatch.setattr(Trainer, "score", rated)
    out = tmp_path / "run"
    train(out, config.changed(steps=12))
    steps = [(step, "validation") for step in (3, 6, 9, 12)]
    assert looked == [*steps, (12, "test")]  # once, and after all that chooses
    assert evaluate(out, which="best")["step"] == 3
    assert summary(out)["validation.accuracy"] == 1 - 12 / 20
    assert summary(out)["test.accuracy"] == 12 / 20


def test_without_validation_images_nothing_chooses(config, tmp_path):
    config, out = config.changed(validation=0), tmp_path / "run"
    with pytest.raises(UserError, match="looks at validation images, and none"):
        train(out, config.changed(stop_at_accuracy=0.5))
    train(out, config)
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] != "train"] == [6]
    assert not any(name.startswith("validation") for name in summary(out))
    with pytest.raises(UserError, match=r"none of the checkpoints .* is known to be the best"):
        evaluate(out, which="best")
    with pytest.raises(UserError, match="set no validation images aside"):
        evaluate(out, split="validation")


def test_as_many_steps_are_recorded_as_asked_for_in_whole_dispatches(tmp_path, monkeypatch, capsys):
    begun, ended = [], []
    step, waited = 0, []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: begun.append(step))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: ended.append(step))
    monkeypatch.setattr(jax, "block_until_ready", lambda state: waited.append(step))
    with Profiler(tmp_path / "profile", 5) as profiler:
        for step in range(3, 24, 3):
            profiler.reached(step, None)
    assert (begun, ended) == ([6], [12])
    assert waited == [6, 12]  # what was sent before is over, and so is what is recorded
    with Profiler(tmp_path / "profile", 5) as profiler:
        for step in (1, 2):
            profiler.reached(step, None)
    assert (begun, ended) == ([6, 2], [12, 2])  # with the training
    assert not capsys.readouterr().err
    with Profiler(tmp_path / "profile", 5) as profiler:
        profiler.reached(16, None)
    assert len(begun) == len(ended) == 2
    assert "note: no profile is recorded" in capsys.readouterr().err


def test_a_profile_of_some_steps_is_left_for_tensorboard(config, tmp_path):
    out = tmp_path / "run"
    train(out, config, profile=2)
    (profile,) = (out / "profile" / "plugins" / "profile").glob("*/*.xplane.pb")
    # The steps are in it, by the name of the function that is mapped over the devices.
    assert b"steps" in profile.read_bytes()
    train(out, config.changed(steps=1), overwrite=True, profile=2)
    assert not (out / "profile").exists()  # the only dispatch waited for the compiler
