"""What `tests.soak.steep` does for 1,000 steps, for as many as a test has time for."""

import pytest

from capsjax import list_routings
from tests.soak.steep import steep


@pytest.mark.slow
@pytest.mark.parametrize("routing", list_routings())
def test_a_rate_that_is_far_too_high_breaks_nothing(routing):
    finite, skipped, largest = steep(routing, 30)
    assert finite
    assert skipped == 0
    assert largest > 0.5  # it has been trained
