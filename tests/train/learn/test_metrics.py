import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.tolerance import assert_close
from train.learn.metrics import Mean, masked_mean, merge


def test_examples_outside_the_mask_do_not_count():
    values, mask = jnp.array([1.0, 2.0, 100.0, 4.0]), jnp.array([1.0, 1.0, 0.0, 1.0])
    mean = masked_mean(values, mask)
    assert (float(mean.total), int(mean.examples)) == (7.0, 3)


def test_what_is_masked_may_be_nan():
    mean = masked_mean(jnp.array([1.0, jnp.inf]), jnp.array([1, 0]))
    assert float(mean.total) == 1.0


def test_right_answers_are_counted():
    mean = masked_mean(jnp.array([True, False, True]))
    assert (float(mean.total), int(mean.examples)) == (2.0, 3)


@given(st.lists(st.lists(st.integers(-100, 100), min_size=1, max_size=5), min_size=1, max_size=5))
def test_merging_ragged_batches_is_the_mean_of_all_examples(batches):
    merged = merge({"x": masked_mean(jnp.array(batch, jnp.float32))} for batch in batches)
    assert_close(merged["x"], np.mean(np.concatenate(batches), dtype=np.float64))


def test_nothing_merged_is_nothing():
    assert merge([]) == {}
    assert np.isnan(merge([{"x": Mean(jnp.zeros(()), jnp.zeros((), jnp.int32))}])["x"])


def test_devices_add_up():
    values = jnp.arange(8.0).reshape(4, 2)
    summed = jax.pmap(
        lambda v: jax.lax.psum({"x": masked_mean(v)}, "data"), axis_name="data", out_axes=None
    )(values)
    assert merge([summed]) == {"x": 3.5}
    assert int(summed["x"].examples) == 8
