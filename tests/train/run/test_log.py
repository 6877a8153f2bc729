import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.learn.metrics import Mean
from train.loop import loop
from train.report.figures import draw_curves
from train.run.folder import Run
from train.run.log import Log, read_metrics
from train.system.errors import UserError


@pytest.fixture
def run(tmp_path, config) -> Run:
    return Run(tmp_path, config, (8, 8, 1), ("a", "b", "c"))


def opened(run: Run, step: int) -> Log:
    """The log of a run that begins or goes on from a step."""
    state = SimpleNamespace(step=step, skipped=SimpleNamespace(total=0))
    dataset = SimpleNamespace(train=range(40))
    trainer = {"config": run.config, "state": state, "dataset": dataset, "total_steps": 9}
    return Log(SimpleNamespace(**trainer), run)


def written(run: Run, step: int, *rows: dict) -> list[dict]:
    """What the file holds after lines were added to it from a step on."""
    with opened(run, step) as log:
        for row in rows:
            log._write({"split": "train", **row})
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def test_each_line_is_one_json_object(run):
    assert written(run, 0, {"step": 1, "loss": 0.1}, {"step": 2, "loss": math.nan}) == [
        {"split": "train", "step": 1, "loss": 0.1},
        {"split": "train", "step": 2, "loss": None},
    ]


def test_resuming_drops_later_lines_and_one_that_was_cut_off(run):
    written(run, 0, *({"step": step} for step in range(1, 6)))
    with run.metrics.open("a") as file:
        file.write('{"step": 6, "lo')
    assert [row["step"] for row in written(run, 3)] == [1, 2, 3]
    assert run.metrics.read_text().endswith('"step": 3}\n')


def test_no_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl") == []
    assert read_metrics(tmp_path) == []


NO_LINES = [
    '{"step": 1, "loss": 0.5}',
    '{"step": 1, "split": "trial"}',
    '{"step": 1, "split": ["train"]}',
    '{"step": -1, "split": "train"}',
    '{"step": 1e300, "split": "train"}',
    '{"step": 1, "split": "train", "loss": "small"}',
    '{"step": 1, "split": "train", "loss": Infinity}',
    '{"step": 1, "split": "train", "loss": 1e999}',
    '{"step": 1, "split": "train", "loss": [[1], [2, 3]]}',
    '{"step": 1, "split": "train", "wall_seconds": ' + "9" * 400 + "}",
    100_000 * "[",
    "\0",
]


def test_lines_that_no_run_writes_are_left_out(run):
    rows = [
        {"step": 2, "split": "train", "loss": 0.5, "wall_seconds": None},
        {"step": 2, "split": "validation", "accuracy": None},
    ]
    run.metrics.write_text("\n".join([*NO_LINES, *map(json.dumps, rows)]) + "\n")
    assert read_metrics(run.metrics) == rows
    assert [len(axes.lines) for axes in draw_curves(rows, "of an untrusted run").axes] == [0, 0]
    assert loop._validated(run, 9, 1) == []
    with opened(run, 2) as log:
        assert log.stopwatch.wall_seconds < 60


def test_the_learning_rate_of_a_long_run_takes_no_memory(tmp_path, config):
    config = config.changed(steps=2**31 - 1, schedule="cosine", learning_rate=0.5)
    log = opened(Run(tmp_path, config, (8, 8, 1), ("a",)), 0)
    with log:
        expected = [0.5, 0.25, 0.0]
        steps = (0, 2**30 - 1, 2**31 - 2)
        assert [log._rate(step) for step in steps] == pytest.approx(expected, abs=1e-6)


def test_the_learning_rate_is_that_of_the_last_update(tmp_path, config):
    config = config.changed(schedule="staircase", decay_steps=1, decay_rate=0.5, learning_rate=0.5)
    run = Run(tmp_path, config, (8, 8, 1), ("a",))
    with opened(run, 0) as log:
        for first, skipped in ((0, [1, 1]), (2, [0, 1, 0])):
            each = {name: Mean(np.ones(len(skipped)), 1) for name in ("loss", "accuracy")}
            each["skipped"] = Mean(np.asarray(skipped), np.ones(len(skipped), int))
            log.trained(first + len(skipped), len(skipped), each, line=True)
    assert [row["learning_rate"] for row in read_metrics(run.metrics)] == [0.5, 0.25]


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.events))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_reads_the_numbers_back(run):
    row = {"step": 1, "loss": 0.5}
    written(run, 0, row, {**row, "split": "test", "loss": 0.75})
    assert scalars(run) == {"train/loss": [(1, 0.5)], "test/loss": [(1, 0.75)]}


def test_a_resumed_run_replaces_the_events_of_steps_taken_again(run):
    written(run, 0, *({"step": step, "loss": 0.5} for step in (1, 2, 3)))
    rows = written(run, 1, {"step": 2, "loss": 0.25})
    assert scalars(run)["train/loss"] == [(1, 0.5), (2, 0.25)]
    assert [row["step"] for row in rows] == [1, 2]


def test_without_tensorboardx_the_file_is_complete_and_a_line_says_so(run, monkeypatch, capsys):
    monkeypatch.setattr("train.run.log.event_writer", lambda: None)
    row = {"split": "train", "step": 1, "loss": 0.5}
    assert written(run, 0, row) == [row]
    assert not run.events.exists()
    compiling, said = capsys.readouterr().err.splitlines()
    assert compiling == "compiling"
    assert said.startswith("note: TensorBoard events are left out")


def test_a_folder_that_is_gone_is_told(run):
    with pytest.raises(UserError, match="cannot be written"):
        opened(Run(run.folder / "gone", run.config, run.image_shape, run.class_names), 0)
