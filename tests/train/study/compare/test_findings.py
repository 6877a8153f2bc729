"""Tables and figures of a comparison."""

import csv
import re

import numpy as np
import pytest

from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.study.compare.findings import (
    csv_text,
    draw_errors,
    draw_robustness,
    limits,
    markdown,
    of_settings,
    table,
)
from train.study.compare.perturb import PERTURBATIONS
from train.study.statistics import pack


def result(routing, *accuracies, dataset="digits", settings=None, **others):
    """What a comparison keeps of a cell; changed images cost one more point each time.

    Of 100 test images the first are recognised, as many as the accuracy says.
    """
    robustness = {
        kind: [[a - 0.01 * i for a in accuracies] for i in range(5)] for kind in PERTURBATIONS
    }
    return {
        "model": "capsnet",
        "routing": routing,
        "label": f"capsnet, {routing}",
        "dataset": dataset,
        "seeds": list(range(len(accuracies))),
        "accuracy": list(accuracies),
        "identity": {"config": {**FitConfig().flat(), **(settings or {})}},
        "right": [pack(np.arange(100) < round(100 * accuracy)) for accuracy in accuracies],
        "from_logits": False,
        "nll": [0.25 for _ in accuracies],
        "calibration_error": [0.125 for _ in accuracies],
        "robustness": robustness,
        "robustness_examples": 100,
        "test_examples": 100,
        "batch_size": 16,
        "steps": 2,
        "images_per_second": 1234.5,
        "step_bytes": 2**21,
        "parameters": 4321,
        "skipped_updates": 0,
        "saved": {"alone": 0.001, "together": 0.0005, "seeds": len(accuracies)},
        **others,
    }


TWO = [result("one", 0.9, 0.8), result("two", 0.7, 0.65)]


def test_a_row_for_each_cell_with_its_difference_from_the_first():
    head, first, second = table(TWO)
    assert dict(zip(head, first, strict=True)) == {
        "model": "capsnet",
        "routing": "one",
        "dataset": "digits",
        "accuracy": "85.00",
        "spread": "7.07",
        "against first": "",
        "nll": "",
        "nll of lengths": "0.2500",
        "calibration": "12.50",
        **dict.fromkeys(PERTURBATIONS, "82.50"),
        "images/s": "1,234",
        "memory": "2 MiB",
        "parameters": "4,321",
        "steps": "2",
        "recipe": "",
    }
    assert re.fullmatch(r"-17\.50 ± [0-9]+\.[0-9]+", second[head.index("against first")])
    alone = [result("one", 0.9), result("two", 0.8)]
    assert table(alone, ["routing", "against first"])[2] == ["two", "-10.00"]
    logits = table([*alone, result("three", 0.9, from_logits=True)], ["nll", "nll of lengths"])
    assert logits[1:] == [["", "0.2500"], ["", "0.2500"], ["0.2500", ""]]


def test_equal_differences_of_all_seeds_are_as_uncertain_as_the_images_are():
    alike = [result("one", 0.9, 0.9, 0.9), result("two", 0.88, 0.88, 0.88)]
    # On 2 of 100 images: it could have been none, or four.
    assert re.fullmatch(r"-2\.00 ± [2-4]\.[0-9]+", table(alike, ["against first"])[2][0])


def test_what_is_seen_is_corrected_for_all_comparisons():
    first, other = result("first", 0.9, 0.9, 0.9), result("other", 0.84, 0.84, 0.84)
    assert table([first, other], ["against first"])[2][0].endswith(" *")
    others = [result(f"other {i}", 0.84, 0.84, 0.84) for i in range(30)]
    assert not table([first, *others], ["against first"])[2][0].endswith(" *")


def test_each_row_says_in_what_its_recipe_is_another():
    cells = [
        result("one", 0.9, settings={"max_shift": 2, "log_every": 5, "seed": 1}),
        result("two", 0.8),
        result("three", 0.8, dataset="mnist", settings={"max_shift": 3}),
    ]
    assert [row[0] for row in table(cells, ["recipe"])[1:]] == [
        "--max-shift 2",
        "--max-shift 0",
        "",
    ]
    assert any("recipe of its own" in sentence for sentence in limits(cells))
    assert not any("recipe of its own" in sentence for sentence in limits(cells[1:]))


def test_a_page_says_what_the_columns_are_and_what_they_cannot_show():
    page = markdown(TWO, "python -m train compare").splitlines()
    assert page[0] == "`python -m train compare`"
    assert page[2].startswith("| model | routing | dataset | accuracy |")
    assert "accuracy: of the test images, in percent, mean of 2 seeds" in page[7]
    assert "would be told from chance in about 80% of such; a smaller one less often" in page[-2]
    assert page[-1].startswith("All 2 seeds at once: 0.5 ms a step, one alone 1.0 ms: 4.00 times")
    (alone,) = limits([result("one", 0.9)])
    assert alone.startswith("One seed shows no spread")


def test_comparisons_stand_side_by_side_by_the_settings_in_which_they_differ():
    slow, fast = (
        [result("one", first, settings=rate), result("two", second, settings=rate)]
        for rate, first, second in (({"learning_rate": 0.5}, 0.9, 0.7), ({}, 0.8, 0.75))
    )
    page = of_settings([slow, fast], "the command")
    usual = FitConfig().schedule.learning_rate
    assert f"| dataset | --learning-rate 0.5 | --learning-rate {usual} |" in page
    assert "| one | digits | **90.00** | 80.00 |" in page
    assert "| two | digits | 70.00 | **75.00** |" in page
    assert "Accuracy on 100 test images" in page
    assert of_settings([slow, fast[::-1]], "the command") == page


def test_comparisons_of_other_cells_have_a_row_for_each_setting_of_a_cell():
    def of(routing, accuracy, parameters, **options):
        settings = {"model_options": {"conv_kernel": 3, **options}}
        return [result(routing, accuracy, settings=settings, parameters=parameters)]

    wide, narrow = (of("one", 0.9, 70, features=[8, 4]), of("one", 0.8, 50, features=[4, 2]))
    page = of_settings([wide, narrow, of("two", 0.7, 60)], "the command")
    assert "| dataset | settings | parameters | accuracy |" in page
    row = "| capsnet | one | digits | --model-options features=[4,2] | 50 | 80.00 |\n"
    assert (
        f"{row}| capsnet | one | digits | --model-options features=[8,4] | 70 | **90.00** |" in page
    )
    assert "| capsnet | two | digits |  | 60 | **70.00** |" in page


def test_updates_that_were_skipped_are_told():
    results = [TWO[0], result("two", 0.7, skipped_updates=3)]
    assert "capsnet, two on digits: 3 updates were skipped, since they were not finite." in limits(
        results
    )


def test_a_line_of_plain_numbers_for_each_seed():
    rows = list(csv.DictReader(csv_text(TWO).splitlines()))
    assert [(row["routing"], row["seed"], row["accuracy"]) for row in rows] == [
        ("one", "0", "0.9"),
        ("one", "1", "0.8"),
        ("two", "0", "0.7"),
        ("two", "1", "0.65"),
    ]
    assert_close(float(rows[3]["scaling 0.6"]), 0.61)
    assert_close(float(rows[3]["rotation 15"]), 0.64)
    assert rows[0]["parameters"] == "4321"


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("digits", ["capsnet, one", "capsnet, two"]),
        ("mnist", ["capsnet, one (digits)", "capsnet, two (mnist)"]),
    ],
)
def test_the_data_set_is_named_where_there_are_two(dataset, expected):
    cells = [TWO[0], result("two", 0.7, 0.65, dataset=dataset)]
    axes = draw_errors(cells).axes[0]
    places = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    assert [tick.get_text() for _, tick in sorted(places, reverse=True)] == expected
    (legend,) = draw_robustness(cells).legends
    assert [text.get_text() for text in legend.get_texts()] == expected


def test_each_seed_is_a_dot_the_mean_a_bar_and_its_interval_a_line():
    axes = draw_errors([result("one", 0.9, 0.8), result("two", 0.7)]).axes[0]
    dots = [line.get_xydata() for line in axes.lines if line.get_marker() == "o"]
    bars = [line for line in axes.lines if line.get_marker() == "|"]
    means = [line.get_xydata() for line in bars if line.get_linestyle() == "None"]
    assert_close(dots[0], [[10, 1], [20, 1]])
    assert_close(dots[1], [[30, 0]])
    assert_close(np.concatenate(means), [[15, 1], [30, 0]])
    (interval,) = (line.get_xydata() for line in bars if line.get_linestyle() == "-")
    assert interval[:, 1].tolist() == [1, 1]
    assert 0 <= interval[:, 0].min() < 10 < 20 < interval[:, 0].max() <= 100


def test_a_cell_that_fails_does_not_hide_how_far_the_others_are_apart():
    cells = [result("one", 0.995), result("two", 0.99), result("three", 0.1, 0.99)]
    axes = draw_errors(cells).axes[0]
    left, right = axes.get_xlim()
    assert 0 <= left < right < 200
    places = axes.transAxes.inverted().transform(axes.transData.transform([(0.5, 0), (1, 0)]))
    assert places[1, 0] - places[0, 0] > 0.05


def test_robustness_is_drawn_by_strength_from_no_change_on():
    panels = draw_robustness(TWO).axes
    assert [axes.get_title() for axes in panels] == list(PERTURBATIONS)
    scaling = panels[1].lines[1].get_xydata()
    assert_close(scaling[:, 0], [1, 0.9, 0.8, 0.7, 0.6])
    assert_close(scaling[:, 1], [67.5, 66.5, 65.5, 64.5, 63.5])
