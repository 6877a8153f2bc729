"""The verdict on a claim."""

import dataclasses
import math

import numpy as np
import pytest

from train.config.fit_config import FitConfig
from train.study.statistics import unpack
from train.study.trial.definition import Arm, Claim, Contrast, Quantity
from train.study.trial.verdict import (
    Measured,
    draw_quantities,
    limits,
    markdown,
    text,
    verdicts,
)

ERROR = Quantity("error, %", lambda folder, data_dir: 0.0)


def claim(*contrasts):
    return Claim("Less is more.", "Nobody 1900", lambda budget: [], [ERROR], contrasts)


def measured(name, *errors, paper=None, steps=100):
    arm = Arm(name, FitConfig.of(batch_size=10), {} if paper is None else {ERROR.name: paper})
    values = np.array(errors, float).reshape(len(errors), -1)
    return Measured(arm, {ERROR.name: values}, 1234, [steps] * len(errors), 12.4)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (
            (1.0, 1.1, 0.9),
            "Seen: A has 1.00 less than B (error, %; p = 0.0033, corrected for all contrasts; "
            "by itself its 95 % interval is ± 0.25, and",
        ),
        ((3.0, 3.1, 2.9), "The opposite was seen: B has 1.00 less than A (error, %;"),
        ((1.0, 2.5, 2.2), "Not seen, nor its opposite: A has 0.10 less than B"),
        ((1.0, 1.0, 1.0), "Cannot be told from seeds that are one or all alike: A has 1.00 less"),
        ((1.0, math.nan, 2.0), "Cannot be told, since not every seed has a value: A has less than"),
    ],
)
def test_whether_it_was_seen(errors, expected):
    both = [measured("A", *errors), measured("B", 2.0, 2.0, 2.0)]
    (sentence,) = verdicts(claim(Contrast("A", "B", ERROR.name)), both)
    assert sentence.startswith(expected)


def test_what_is_known_of_images_is_said():
    contrast = claim(Contrast("A", "B", ERROR.name))
    single = verdicts(contrast, [measured("A", 1.0, 1.1, 0.9), measured("B", 2.0, 2.0, 2.1)])
    assert single[0].endswith("of such trials; over other seeds, not other images).")
    errors = [[0.0, 100.0, 0.0, 0.0], [0.0, 100.0, 0.0, 100.0]]
    of_images = verdicts(contrast, [measured("A", *errors), measured("B", *errors[::-1])])
    assert of_images[0].endswith("of such trials).")


def test_one_seed_shows_nothing():
    both = [measured("A", 1.0), measured("B", 2.0)]
    (sentence,) = verdicts(claim(Contrast("A", "B", ERROR.name)), both)
    assert sentence.startswith("Cannot be told from seeds that are one or all alike: A has 1.00")


def test_several_contrasts_are_all_said_and_corrected_together():
    arms = [
        measured("A", 1.0, 1.4, 0.8),
        measured("B", 2.0, 2.0, 2.0),
        measured("C", 2.5, 1.6, 2.3),
    ]
    one = verdicts(claim(Contrast("A", "B", ERROR.name)), arms)
    both = verdicts(claim(Contrast("A", "B", ERROR.name), Contrast("C", "B", ERROR.name)), arms)
    assert one[0].startswith("Seen: A has 0.93 less than B")
    assert both[0].startswith("Not seen, nor its opposite: A has 0.93 less than B")
    assert both[1].startswith("Not seen, nor its opposite: B has 0.13 less than C")


def test_errors_of_images_are_kept_image_by_image():
    plain = measured("A", [0.0, 100.0, 0.0], [100.0, 100.0, 0.0]).plain()
    assert plain["values"] == {ERROR.name: [100 / 3, 200 / 3]}
    kept = plain["of_images"][ERROR.name]
    assert [unpack(text, kept["of"]).tolist() for text in kept["where"]] == [
        [False, True, False],
        [True, True, False],
    ]
    assert measured("A", 1.0, 2.0).plain()["of_images"] == {}


def test_the_table_has_the_papers_numbers_beside_ours():
    both = [measured("A", 1.0, 2.0, paper=0.25), measured("B", 2.0, 2.0)]
    lines = text(claim(), both, "small").splitlines()
    assert lines[0].split("  ")[0] == "network"
    assert lines[1].split() == ["A", "1.50", "±", "0.71", "0.25", "1,234", "1,000", "12"]
    assert lines[2].split() == ["B", "2.00", "±", "0.00", "1,234", "1,000", "12"]
    page = markdown(claim(), both, "small", "python -m train claims x", ["a.png"])
    assert "| A | 1.50 ± 0.71 | 0.25 | 1,234 | 1,000 | 12 |" in page
    assert "`python -m train claims x`" in page
    assert "![a.png](a.png)" in page
    assert "- Nothing is compared here" in page


def test_a_small_budget_says_that_it_proves_nothing():
    both = [measured("A", 1.0, 2.0), measured("B", 1.0, 2.0, steps=50)]
    first, second = limits(both, "small")
    assert first == (
        "Budget small: 2 seeds, 500 to 1,000 training images seen by each network. In the table ± "
        "is the standard deviation of the seeds."
    )
    assert second.startswith("This budget proves nothing")
    assert len(limits(both, "paper")) == 1


def test_every_seed_the_mean_and_the_papers_value_are_drawn_whichever_arm_has_it():
    figure = draw_quantities(
        claim(), [measured("A", 1.0, 2.0, paper=0.25), measured("B", 2.0, 3.0)]
    )
    (axes,) = figure.axes
    drawn = {
        marker: [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == marker]
        for marker in "o|D"
    }
    assert drawn == {
        "o": [[[1, 1], [2, 1]], [[2, 0], [3, 0]]],
        "|": [[[1.5, 1]], [[2.5, 0]]],
        "D": [[[0.25, 1]]],
    }
    places = dict(
        zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks(), strict=True)
    )
    assert places == {"A": 1, "B": 0}
    (legend,) = figure.legends
    assert [label.get_text() for label in legend.get_texts()] == ["a seed", "mean", "paper"]
    assert axes.get_title() == ERROR.name


def test_many_quantities_are_drawn_in_rows():
    quantities = [Quantity(f"error {n}", ERROR.of) for n in range(7)]
    many = claim()._replace(quantities=quantities)
    each = measured("A", 1.0, 2.0)
    values = {quantity.name: each.values[ERROR.name] for quantity in quantities}
    figure = draw_quantities(many, [dataclasses.replace(each, values=values)])
    assert [axes.get_title() for axes in figure.axes] == [q.name for q in quantities]
    figure.draw_without_rendering()
    places = [axes.get_position() for axes in figure.axes]
    assert len({round(place.x0, 3) for place in places}) == 3
    assert len({round(place.y0, 3) for place in places}) == 3


def test_values_that_lie_close_together_are_not_cut_off_at_the_edge():
    (axes,) = draw_quantities(claim(), [measured("A", 74.4, 75.0)]).axes
    left, right = axes.get_xlim()
    assert left == 0
    assert right > 77
