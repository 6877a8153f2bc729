"""What is drawn of classes: the confusion of them, and how well each is found."""

import numpy as np

from tests.tolerance import assert_close
from train.learn.class_metrics import count_classes
from train.report.class_figures import draw_classes, draw_confusion


def test_the_confusion_matrix_counts_true_and_predicted():
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    (axes,) = draw_confusion(labels, predictions, ("a", "b", "c"), "title").axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (1, 2): "1"}  # (column, row)
    assert_close(axes.images[0].get_array()[0], np.sqrt([0.5, 0.5, 0]))


def test_a_hundred_classes_can_be_drawn():
    names = tuple(f"class {i}" for i in range(100))
    (axes,) = draw_confusion(np.arange(100), np.arange(100), names, "title").axes
    assert not axes.texts


def test_each_class_has_its_shares_and_no_dot_for_a_share_of_nothing():
    """Class b has no examples, c is never predicted; the lowest F1 is at the top."""
    counts = count_classes(np.array([0, 0, 2]), np.array([0, 1, 0]), 3)
    (axes,) = draw_classes(counts, ("a", "b", "c"), "title").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b  (0)", "c  (1)", "a  (2)"]
    precision, recall, f1 = (line.get_xdata() for line in axes.lines)
    np.testing.assert_array_equal(precision, [0, np.nan, 0.5])
    np.testing.assert_array_equal(recall, [np.nan, 0, 0.5])
    np.testing.assert_array_equal(f1, [0, 0, 0.5])


def test_of_a_thousand_classes_the_lowest_have_a_row_and_all_a_histogram():
    labels = np.repeat(np.arange(1000), 4)
    predictions = np.where(np.arange(4000) == 4 * 700, 0, labels)
    counts = count_classes(labels, predictions, 1000)
    names = tuple(f"a long name, {number}" for number in range(1000))
    rows, histogram = draw_classes(counts, names, "title").axes
    assert rows.get_yticklabels()[0].get_text() == "a long name, 700  (4)"
    assert len(rows.get_yticks()) == 30
    assert sum(patch.get_height() for patch in histogram.patches) == 1000
