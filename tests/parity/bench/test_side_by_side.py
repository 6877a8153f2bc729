import pytest
from parity.bench.measure import Measured, make_work, summarise
from parity.bench.tables import draw, table
from parity.bench.worker import Ready

from parity.bench.contenders import CONTENDERS
from parity.cli.bench import CONTENDER_NAMES


@pytest.fixture
def results() -> list[Measured]:
    ready = Ready("a device", 1.5, 0.25)
    ours = Measured("ours", 8, ready, {"train": [20.0, 60.0, 30.0], "forward": [9.0] * 3}, 2**30)
    base = Measured("base", 8, ready, {"train": [10.0, 20.0, 10.0], "forward": [3.0] * 3}, 2**29)
    return [ours, base, Measured("broken", 8, failure="no such device")]


def test_ratios_are_taken_round_by_round(results):
    rows = {(row["contender"], row["work"]): row for row in summarise(results, "base")}
    ours = rows["ours", "train"]
    assert ours["images_per_second"] == 30
    assert (ours["slowest"], ours["fastest"]) == (20, 60)
    assert (ours["ratio_low"], ours["ratio"], ours["ratio_high"]) == (2, 3, 3)
    assert rows["base", "train"]["ratio"] == 1
    assert rows["broken", "train"]["failure"] == "no such device"


def test_without_its_baseline_there_is_no_ratio(results):
    assert summarise(results, "broken")[0]["ratio"] is None
    assert "| - |" in table(summarise(results, "broken"), "broken")


def test_the_table_has_a_line_for_everything_measured(results):
    lines = table(summarise(results, "base"), "base").splitlines()
    assert len(lines) == 2 + 6
    assert lines[2] == (
        "| 8 | training step | ours | 30.0 (20.0 to 60.0) | 3.00 (2.00 to 3.00) | 1.07 GB | 1.5 s |"
    )
    assert "cannot run: no such device" in lines[-1]


def test_the_chart_has_a_bar_for_everything_that_ran(results, tmp_path):
    path = tmp_path / "chart.png"
    draw(path, summarise(results, "base"), "title")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_work_is_real_digits_at_the_paper_s_size():
    work = make_work(5, dtype="float32", iterations=3)
    assert work.images.shape == (5, 28, 28, 1)
    assert work.images.max() == 255
    assert work.labels.shape == (5,)


def test_every_contender_has_a_name_on_the_command_line():
    assert tuple(CONTENDERS) == CONTENDER_NAMES
