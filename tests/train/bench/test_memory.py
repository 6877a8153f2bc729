import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tolerance import assert_close
from train.bench.memory import largest_batch
from train.system.errors import DoesNotFitError


@given(
    fixed=st.integers(0, 10_000),
    each=st.integers(1, 500),
    bend=st.floats(0.8, 1.25),
    multiple=st.sampled_from([1, 2, 8]),
    budget=st.integers(20_000, 2_000_000),
)
@settings(max_examples=200)
def test_the_largest_batch_fits_and_no_line_says_that_a_larger_one_would(
    fixed, each, bend, multiple, budget
):
    asked = []

    def bytes_of(size):
        asked.append(size)
        return fixed + int(each * size**bend)

    found = largest_batch(bytes_of, budget, multiple=multiple, start=multiple)
    assert len(asked) == len(set(asked))
    assert found["compiled_bytes"] == bytes_of(found["batch_size"]) <= budget
    assert found["batch_size"] % multiple == 0
    next_one = bytes_of(found["batch_size"] + multiple)
    steps = found["bytes_per_image"] * multiple, next_one - found["compiled_bytes"]
    assert next_one + max(steps) > budget


def test_a_jump_between_two_batches_is_not_taken_for_what_an_image_takes():
    found = largest_batch(
        lambda size: 1000 + 10 * size + 500 * (size >= 4880), 50_250, multiple=1, start=16
    )
    assert found["batch_size"] == 4879
    assert_close([found["bytes_per_image"], found["fixed_bytes"]], [10, 1000])


def test_a_straight_line_takes_three_compilations():
    asked = []

    def bytes_of(size):
        asked.append(size)
        return 1000 + 10 * size

    found = largest_batch(bytes_of, 50_005, multiple=1, start=16)
    assert (found["batch_size"], found["predicted_bytes"], found["compiled_bytes"]) == (
        4900,
        50_000,
        50_000,
    )
    assert list(found["compiled"]) == asked == [16, 32, 4900]


def test_too_little_memory_is_refused():
    with pytest.raises(DoesNotFitError, match="a batch of 2 takes 1,020 bytes, more than the 900"):
        largest_batch(lambda size: 1000 + 10 * size, 900, multiple=2, start=8)
