"""Metrics of each class: scikit-learn's, and what is said of classes that are not there."""

import json
import time

import jax
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from train.learn.class_metrics import count_classes


@pytest.fixture
def drawn():
    """Labels and predictions of eleven classes of many sizes; the last is in neither."""
    rng = np.random.default_rng(0)
    labels = rng.choice(10, 2000, p=np.arange(1, 11) / 55)
    predictions = np.where(rng.random(2000) < 0.7, labels, rng.integers(0, 10, 2000))
    return labels, predictions


def test_they_are_those_of_scikit_learn(drawn):
    counts = count_classes(*drawn, 11)
    precision, recall, f1, support = precision_recall_fscore_support(
        *drawn, labels=range(11), zero_division=np.nan
    )
    np.testing.assert_allclose(counts.precision, precision, rtol=1e-15)
    np.testing.assert_allclose(counts.recall, recall, rtol=1e-15)
    np.testing.assert_allclose(counts.f1, f1, rtol=1e-14)
    np.testing.assert_array_equal(counts.support, support)
    means = counts.means
    assert means["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(*drawn), rel=1e-14)
    assert means["macro_precision"] == pytest.approx(np.nanmean(precision), rel=1e-14)
    assert means["macro_f1"] == pytest.approx(np.nanmean(f1), rel=1e-14)


def test_a_share_of_nothing_is_null_and_left_out_of_means():
    """Class b has no examples, c is never predicted, d is neither."""
    counts = count_classes(np.array([0, 0, 2, 2]), np.array([0, 1, 0, 0]), 4)
    rows = counts.rows(["a", "b", "c", "d"])
    assert [tuple(row.values())[1:] for row in rows] == [
        (1 / 3, 0.5, 0.4, 2),
        (0.0, None, 0.0, 0),
        (None, 0.0, 0.0, 2),
        (None, None, None, 0),
    ]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert counts.means == {
        "balanced_accuracy": 0.25,
        "macro_precision": pytest.approx(1 / 6),
        "macro_f1": pytest.approx(0.4 / 3),
    }


def test_counts_of_parts_add_up(drawn):
    whole = count_classes(*drawn, 11)
    parts = [
        count_classes(*(x[part] for x in drawn), 11) for part in (slice(700), slice(700, None))
    ]
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.add, *parts), whole)


def test_images_of_several_classes_are_counted_in_each_of_them():
    counts = count_classes(np.array([[0, 1], [1, 2]]), np.array([[1, 0], [0, 1]]), 3)
    assert [array.tolist() for array in counts] == [[1, 2, 1], [2, 2, 0], [1, 2, 0]]


def test_a_thousand_classes_of_a_million_examples_are_counted_at_once():
    labels = np.random.default_rng(0).integers(0, 1000, 1_000_000)
    begun = time.monotonic()
    assert count_classes(labels, labels, 1000).means["macro_f1"] == 1
    assert time.monotonic() - begun < 2
