"""A run that is killed five times; `make soak` does it fifty times."""

import pytest

from tests.soak.crashes import crash


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_loses_nothing(tmp_path):
    said = crash(tmp_path, kills=5, steps_per_kill=40, seconds=0.4)
    assert said.startswith("5 kills")
