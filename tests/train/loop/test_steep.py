"""What `tests.soak.steep` does for 1,000 steps of each routing, for as many as a test may take."""

import pytest

from tests.soak.steep import steep

ALGORITHMS = (
    *("dynamic", "em", "heinsen", "inverted-attention", "k-means", "kde-dynamic"),
    *("self-attention", "self-routing", "variational-bayes"),
)
"""The others are variants of these."""


@pytest.mark.slow
@pytest.mark.parametrize("routing", ALGORITHMS)
def test_a_rate_that_is_far_too_high_breaks_nothing(routing):
    finite, skipped, largest = steep(routing, 30)
    assert finite
    assert skipped == 0
    assert largest > 0.5  # it has been trained
