"""Scaling: what is run, the formula by hand, and the command on devices that are made up."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.__main__ import main
from train.bench import runner, scaling
from train.bench.scaling import Layout, StepTime, all_reduce_seconds, doubled, layouts, predict


def test_weak_scaling_grows_the_batch_and_strong_scaling_shares_it():
    assert layouts("weak", 6, [1, 2, 4]) == [Layout(1, 6), Layout(2, 12), Layout(4, 24)]
    assert layouts("strong", 6, [1, 2, 4]) == [Layout(1, 6), Layout(2, 6)]  # 4 cannot share 6
    assert [layout.share for layout in layouts("strong", 6, [1, 2, 3])] == [6, 3, 2]


@pytest.mark.parametrize(("last", "counts"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_devices_are_doubled_up_to_all(last, counts):
    assert doubled(last) == counts


def test_a_ring_sends_everything_but_its_own_part_twice():
    # Each of 4 devices sends a quarter of the gradient 3 times to sum it and 3 times to share it.
    assert all_reduce_seconds(4, 800, 100.0) == 2 * 3 * 200 / 100
    assert all_reduce_seconds(1, 800, 100.0) == 0


def test_a_step_takes_its_computation_and_the_sum_of_the_gradient():
    step_time = StepTime({64: 7.0, 32: 4.0, 16: 2.5})  # 1 second, and 3/32 for each image
    found = predict(Layout(2, 96), step_time, 800, 100.0)
    assert found["communication_seconds"] == 8
    assert found["step_seconds"] == pytest.approx(1 + 48 * 3 / 32 + 8)


@given(
    seconds=st.dictionaries(st.integers(1, 999), st.floats(1e-4, 1e3), min_size=1, max_size=3),
    share=st.integers(1, 10**5),
)
def test_the_time_of_one_device_is_what_was_measured_and_never_nothing(seconds, share):
    step_time = StepTime(seconds)
    for batch, measured in seconds.items():
        assert step_time(batch) == measured
    assert step_time(share) > 0


def test_a_step_is_measured(config, dataset):
    found = scaling.measure_step(config, dataset, 2, repetitions=2, seconds=1e-3)
    assert 0 < found["fastest_seconds"] <= found["step_seconds"] <= found["slowest_seconds"]
    assert found["gradient_bytes"] % 4 == 0
    assert found["gradient_bytes"] > 4000


@pytest.fixture
def four_devices(monkeypatch):
    """Measures nothing: an image takes a millisecond, and each further device costs two."""
    machine = {"devices": 4, "device_kind": "made up", "platform": "cpu"}

    def measure(function, config, dataset, devices, **_):
        seconds = (config.schedule.batch_size / devices + 2 * (devices - 1)) / 1e3
        return {"step_seconds": seconds, "gradient_bytes": 10**6}

    monkeypatch.setattr(runner, "in_own_process", lambda *_, **__: machine)
    monkeypatch.setattr(scaling, "in_own_process", measure)


def test_the_command_measures_predicts_draws_and_warns(four_devices, tmp_path, capsys):
    out = tmp_path / "found.json"
    arguments = ["bench", "digits", "--scaling", "--batch-size", "8", "--link-bandwidth", "1GB"]
    arguments += ["--predict-devices", "8,16", "--json", str(out), "--plot", str(tmp_path)]
    assert main(arguments) == 0
    found = json.loads(out.read_text())
    weak = {row["devices"]: row for row in found["rows"] if row["kind"] == "weak"}
    assert weak[1]["efficiency"] == 1
    assert weak[4]["efficiency"] == pytest.approx(8 / 14)
    assert weak[4]["images_per_second"] == pytest.approx(32 / 14e-3)
    strong = {row["devices"]: row for row in found["rows"] if row["kind"] == "strong"}
    assert strong[4]["efficiency"] == pytest.approx(2 / 8)
    predicted = [(row["kind"], row["devices"]) for row in found["predicted"]]
    assert predicted == [("weak", 8), ("weak", 16), ("strong", 8)]  # 16 cannot share 8
    assert found["predicted"][0]["step_seconds"] == pytest.approx(8e-3 + 2 * 7 / 8 * 1e-3)
    said = capsys.readouterr().out
    assert "These devices are virtual" in said
    assert "| weak | 8 | 64 | 9.75 | 1.75 | 6,564 | 82% |" in said
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_without_a_bandwidth_nothing_is_predicted(four_devices, capsys):
    assert main(["bench", "digits", "--scaling"]) == 0
    said = capsys.readouterr().out
    assert "--link-bandwidth predicts it for more devices; a gradient takes 1.0 MB" in said
    assert "Predicted" not in said
