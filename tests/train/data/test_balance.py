"""The choice of examples of each class."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.data.balance import of_each_class


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=60), st.booleans(), st.booleans(), st.data()
)
def test_as_many_as_asked_for_in_proportion_from_one_end_of_each_class(
    labels, last, leave_one, data
):
    labels = np.asarray(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    count = data.draw(st.integers(0, len(labels) - leave_one * len(classes)))
    chosen = of_each_class(labels, count, last=last, leave_one=leave_one)
    assert len(chosen) == count
    assert np.all(np.diff(chosen) > 0)
    for label, size in zip(classes, sizes, strict=True):
        of_class = np.flatnonzero(labels == label)
        held = np.intersect1d(chosen, of_class)
        assert len(held) <= size - leave_one
        start = size - len(held) if last else 0
        np.testing.assert_array_equal(held, of_class[start : start + len(held)])
        if not leave_one:
            assert abs(len(held) - count * size / len(labels)) < 1
