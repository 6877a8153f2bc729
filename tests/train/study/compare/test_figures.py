"""Figures of a comparison."""

import pytest
from train.study.compare.figures import draw_accuracy, draw_robustness

from train.study.compare.perturb import PERTURBATIONS


def cell(label, dataset, *accuracies):
    robustness = {
        kind: [list(accuracies)] * (1 + len(perturbation.strengths))
        for kind, perturbation in PERTURBATIONS.items()
    }
    return {
        "label": label,
        "dataset": dataset,
        "accuracy": list(accuracies),
        "robustness": robustness,
    }


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        (("digits", "digits"), ["one", "two"]),
        (("digits", "mnist"), ["one (digits)", "two (mnist)"]),
    ],
)
def test_the_data_set_is_named_where_there_are_two(datasets, expected):
    cells = [cell("one", datasets[0], 0.9, 0.8), cell("two", datasets[1], 0.7, 0.6)]
    ticks = draw_accuracy(cells).axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == expected
    (legend,) = draw_robustness(cells).legends
    assert [text.get_text() for text in legend.get_texts()] == expected


def test_each_seed_is_a_dot_and_the_mean_a_line():
    axes = draw_accuracy([cell("one", "digits", 0.9, 0.8), cell("two", "digits", 0.7)]).axes[0]
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    means = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    assert [list(values) for values in dots] == [pytest.approx([90, 80]), pytest.approx([70])]
    assert [float(value) for (value,) in means] == pytest.approx([85, 70])
