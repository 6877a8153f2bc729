import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.run.folder import Run
from train.run.log import MetricsFile, Writers, read_metrics
from train.system.errors import UserError

METRICS = {"loss": 0.25, "accuracy": 0.5}


@pytest.fixture
def run(tmp_path, config) -> Run:
    return Run(tmp_path, config, (8, 8, 1), ("a", "b", "c"))


def test_each_line_is_one_json_object(tmp_path):
    file = MetricsFile(tmp_path / "m.jsonl", 0)
    file.write({"step": 1, "split": "train", "loss": 0.1})
    file.write({"step": 2, "split": "train", "loss": math.nan})
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == [
        {"step": 1, "split": "train", "loss": 0.1},
        {"step": 2, "split": "train", "loss": None},
    ]
    file.close()


def test_resuming_drops_later_lines_and_one_that_was_cut_off(tmp_path):
    path = tmp_path / "m.jsonl"
    file = MetricsFile(path, 0)
    for step in range(1, 6):
        file.write({"step": step})
    file.close()
    path.write_text(path.read_text() + '{"step": 6, "lo')
    MetricsFile(path, 3).close()
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert path.read_text().endswith('{"step": 3}\n')


def test_no_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl") == []


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.events))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_reads_the_numbers_back(run):
    with Writers(run, 0) as writers:
        writers.write({"step": 1, "split": "train", "loss": 0.5})
        writers.write({"step": 1, "split": "test", "loss": 0.75})
    assert scalars(run) == {"train/loss": [(1, 0.5)], "test/loss": [(1, 0.75)]}


def test_a_resumed_run_replaces_the_events_of_steps_taken_again(run):
    with Writers(run, 0) as writers:
        for step in (1, 2, 3):
            writers.write({"step": step, "split": "train", "loss": 0.5})
    with Writers(run, 1) as writers:
        writers.write({"step": 2, "split": "train", "loss": 0.25})
    assert scalars(run)["train/loss"] == [(1, 0.5), (2, 0.25)]
    assert [row["step"] for row in read_metrics(run.metrics)] == [1, 2]


def test_without_tensorboardx_the_file_is_complete_and_a_line_says_so(run, monkeypatch, capsys):
    monkeypatch.setattr("train.run.log.SummaryWriter", None)
    with Writers(run, 0) as writers:
        writers.write({"step": 1, "split": "train", "loss": 0.5})
    assert read_metrics(run.metrics) == [{"step": 1, "split": "train", "loss": 0.5}]
    assert not run.events.exists()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("note: TensorBoard events are left out")


def test_a_folder_that_is_gone_is_told(run):
    with pytest.raises(UserError, match="cannot be written"):
        Writers(Run(run.folder / "gone", run.config, run.image_shape, run.class_names), 0)
