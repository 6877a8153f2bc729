import jax.numpy as jnp
import optax

from tests.tolerance import assert_close
from train.learn.step import in_parts, move_average


def test_what_parts_of_a_batch_change_in_a_model_is_averaged_as_over_devices():
    def function(examples):
        return {"mean": jnp.mean(examples)}, {"sum": jnp.sum(examples)}

    for parts in (1, 2, 4):
        means, sums = in_parts(function, jnp.arange(8.0), parts)
        assert means == {"mean": 3.5}
        assert sums == {"sum": 28.0}


def test_the_average_is_that_of_optax_with_its_bias_corrected():
    decay = 0.9
    reference = optax.ema(decay, debias=True)
    average = {"x": jnp.full(3, 7.0)}  # forgotten at the first update
    state = reference.init(average)
    for step in range(5):
        params = {"x": jnp.arange(3.0) ** step}
        average = move_average(average, params, decay, jnp.int32(step + 1))
        expected, state = reference.update(params, state)
        assert_close(average["x"], expected["x"], reduction_length=step + 1)


def test_a_slow_average_begins_with_the_first_update():
    average = move_average(jnp.full(3, 7.0), jnp.arange(3.0), 0.99999, jnp.int32(1))
    assert_close(average, jnp.arange(3.0))
