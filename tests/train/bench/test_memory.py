import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.bench.measure import predict_memory
from train.bench.memory import DoesNotFitError, footprint, largest_batch, peak_bytes, room


def test_a_line_through_two_batches_predicts_a_third(config, dataset):
    budget = 15_000_000
    quick = {"conv_kernel": 1, "primary_kernel": 1, "decoder_hidden": None}
    started = config.changed(
        batch_size=512, model_options=config.model.options | quick, routing_iterations=1
    )
    found = predict_memory(started, dataset, devices=1, budget=budget)
    sizes = list(found.compiled)
    assert sizes[:2] == [256, 512]
    assert found.batch_size in sizes[2:]
    assert found.compiled_bytes == found.compiled[found.batch_size] <= budget
    assert found.predicted_bytes == pytest.approx(found.compiled_bytes, rel=0.02)
    # The next larger one does not: by its program, which may need more than the line says, if it
    # was compiled, and by the line otherwise.
    by_the_line = found.compiled_bytes + 2 * found.bytes_per_image
    assert found.compiled.get(found.batch_size + 1, by_the_line) > budget
    assert all(found.compiled[size] > budget for size in sizes if size > found.batch_size)


def test_donated_arguments_do_not_count_twice():
    x = jnp.ones(1000)
    kept = footprint(jax.jit(lambda x: x + 1).lower(x).compile())
    with jax.debug_nans(False):  # which keeps what was donated
        donated = footprint(jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile())
    assert (kept.arguments, kept.outputs, kept.total) == (4000, 4000, 8000)
    assert donated.total == 4000


@given(
    fixed=st.integers(0, 10_000),
    each=st.integers(1, 500),
    bend=st.floats(0.8, 1.25),
    multiple=st.sampled_from([1, 2, 8]),
    budget=st.integers(20_000, 2_000_000),
)
@settings(max_examples=200, deadline=None)
def test_the_largest_batch_fits_and_no_line_says_that_a_larger_one_would(
    fixed, each, bend, multiple, budget
):
    asked = []

    def bytes_of(size):
        asked.append(size)
        return fixed + int(each * size**bend)

    found = largest_batch(bytes_of, budget, multiple=multiple, start=multiple)
    assert len(asked) == len(set(asked))
    assert found.compiled_bytes == bytes_of(found.batch_size) <= budget
    assert found.batch_size % multiple == 0
    next_one = bytes_of(found.batch_size + multiple)
    assert next_one + found.bytes_per_image * multiple > budget


def test_a_straight_line_takes_three_compilations():
    asked = []

    def bytes_of(size):
        asked.append(size)
        return 1000 + 10 * size

    assert largest_batch(bytes_of, 50_005, multiple=1, start=16).batch_size == 4900
    assert asked == [16, 32, 4900]


def test_too_little_memory_is_told():
    with pytest.raises(DoesNotFitError, match="a batch of 2 takes 1,020 bytes, more than the 900"):
        largest_batch(lambda size: 1000 + 10 * size, 900, multiple=2, start=8)


class Device:
    def __init__(self, **statistics):
        self._statistics = statistics

    def memory_stats(self):
        return self._statistics or None


def test_an_accelerator_knows_its_memory_and_a_cpu_its_process_s():
    gpus = [Device(bytes_limit=100, peak_bytes_in_use=70), Device(bytes_limit=90)]
    gpus[1]._statistics["peak_bytes_in_use"] = 80
    assert (room(gpus), peak_bytes(gpus)) == (90, 80)
    cpus = [Device(), Device()]
    assert room(cpus) == room(cpus[:1]) // 2 > 0
    assert peak_bytes(cpus) > 10**7
