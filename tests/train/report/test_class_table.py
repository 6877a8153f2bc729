"""Metrics of classes as text: each of a few, the worst of many."""

import numpy as np

from train.learn.class_metrics import count_classes
from train.report.class_table import in_words


def result(labels, predictions, names, **more):
    counts = count_classes(np.asarray(labels), np.asarray(predictions), len(names))
    return {**counts.means, **more, "classes": counts.rows(names)}


def test_a_few_classes_have_a_row_each():
    lines = in_words(result([0, 0, 0, 2], [0, 0, 1, 0], ["cat", "dog", "a newt"])).splitlines()
    assert lines == [
        "balanced accuracy 33.33%, precision 33.33%, F1 22.22% (means over classes)",
        "class   precision  recall  F1      support",
        "cat     66.67%     66.67%  66.67%  3",
        "dog     0.00%      -       0.00%   0",
        "a newt  -          0.00%   0.00%   1",
    ]


def test_of_a_thousand_classes_the_worst_have_a_row():
    labels = np.repeat(np.arange(1000), 4)
    predictions = labels.copy()
    predictions[4 * 700 : 4 * 700 + 3] = 0
    names = [f"n{number:04}" for number in range(1000)]
    lines = in_words(result(labels, predictions, names, top_5_accuracy=0.999)).splitlines()
    assert lines[1] == "top-5 accuracy 99.90%"
    assert lines[2] == "the 5 of 1,000 classes with the lowest F1:"
    assert [line.split()[0] for line in lines[4:]] == ["n0700", "n0000", "n0001", "n0002", "n0003"]
