import numpy as np
import pytest

from tests.train.bench.conftest import make_row
from train.bench.charts import draw_all, draw_growth, draw_parts, draw_scaling
from train.bench.step_parts import NAMES
from train.bench.sweep import growths


@pytest.mark.parametrize("parts", [True, False])
def test_there_is_a_figure_of_everything_that_grows(failed, parts):
    changes = {} if parts else {"parts": []}
    rows = [
        *(make_row(batch_size=b, dtype=d, **changes) for b in (2, 4) for d in ("float32", "bf")),
        *(make_row(batch_size=2, primary_capsules=c, **changes) for c in (32, 64)),
        failed,
    ]
    drawn = draw_all(rows, growths(rows), "title")
    assert list(drawn) == [*(["parts.png"] if parts else []), "batch.png", "capsules.png"]


def test_parts_are_stacked_up_to_the_whole_step():
    rows = [make_row(), make_row(batch_size=16, step_seconds=0.002)]
    time, memory = draw_parts(rows, "title").axes
    bars = {container.get_label(): container for container in time.containers}
    assert list(bars) == [*NAMES, "not covered"]
    starts = {name: [bar.get_x() for bar in bar_of] for name, bar_of in bars.items()}
    widths = {name: [bar.get_width() for bar in bar_of] for name, bar_of in bars.items()}
    np.testing.assert_allclose(starts["decoder"], [3, 3])
    np.testing.assert_allclose(widths["decoder"], [1, 1])
    np.testing.assert_allclose(widths["not covered"], [3, 0])  # parts of 5 ms, steps of 8 and 2
    assert [text.get_text() for text in time.get_yticklabels()] == ["batch 8", "batch 16"]
    # The second step takes less than its parts alone, which the mark of the whole step shows.
    (whole,) = time.lines
    np.testing.assert_allclose(whole.get_xdata(), [8, 2])
    whole = {line.get_label(): line for line in memory.lines}["whole step"]
    assert list(whole.get_xdata()) == [2.5, 2.5]


def test_growth_has_speed_memory_and_the_cost_of_an_image():
    rows = [make_row(batch_size=b, images_per_second=1000.0 + b) for b in (2, 4)]
    speed, time, memory = draw_growth(growths(rows), "title").axes
    assert [list(axis) for axis in speed.lines[0].get_data()] == [[2, 4], [1002, 1004]]
    assert speed.get_xlabel() == "images in a step"
    lines = {line.get_label().split(",")[0]: list(line.get_ydata()) for line in memory.lines}
    assert lines == {"planned": [2.5, 2.5], "peak in use": [500, 500]}
    votes = next(c for c in time.containers if c.get_label() == "votes")
    assert [bar.get_height() for bar in votes] == [0.5, 0.25]
    assert time.get_ylabel() == "ms an image"
    highest = max(bar.get_y() + bar.get_height() for bars in time.containers for bar in bars)
    assert highest < time.get_ylim()[1]
    for axes in (speed, time, memory):
        below = axes.get_legend().get_window_extent().y1
        assert below < axes.get_window_extent().y0


def test_scaling_has_a_line_for_each_kind():
    rows = [
        {"kind": kind, "devices": n, "images_per_second": 100.0 * n, "efficiency": 1 / n}
        for kind in ("weak", "strong")
        for n in (1, 2)
    ]
    speed, share = draw_scaling(rows, "title").axes
    assert [line.get_label() for line in speed.lines] == ["weak", "strong"]
    assert [list(line.get_ydata()) for line in speed.lines] == [[100, 200]] * 2
    assert [list(line.get_ydata()) for line in share.lines] == [[100, 50], [100, 50], [100, 100]]
    assert [text.get_text() for text in speed.get_xticklabels()] == ["1", "2"]
