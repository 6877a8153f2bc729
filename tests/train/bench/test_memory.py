from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.bench import memory
from train.bench.memory import largest_batch, predict_memory
from train.system.errors import DoesNotFitError


def test_a_line_through_two_batches_predicts_a_third(config, dataset):
    quick = {"conv_kernel": 1, "primary_kernel": 1, "decoder_hidden": None}
    quick |= {"routing_implementation": "xla"}
    quick = {"model_options": config.model.options | quick, "routing_iterations": 1}
    config = config.changed(**quick, batch_size=256, max_shift=0)
    budget = 2_660_000
    found = predict_memory(config, dataset, 1, budget)
    assert found["batch_size"] in list(found["compiled"])[2:]
    assert found["predicted_bytes"] == pytest.approx(found["compiled_bytes"], rel=0.02)
    assert found["compiled_bytes"] == found["compiled"][found["batch_size"]] <= budget


@pytest.mark.parametrize("with_program", [False, True])
def test_the_program_itself_and_all_devices_count_on_a_cpu(
    config, dataset, monkeypatch, with_program
):
    """A step takes 1,000 bytes and 10 for an image of a device, 200 of them arguments."""
    asked = []

    def planned(program, size):
        asked.append(size)
        return {"total": 1000 + 10 * size // 2, "arguments": 200}

    mesh = SimpleNamespace(devices=SimpleNamespace(size=2))
    program = SimpleNamespace(mesh=mesh, config=config.changed(batch_size=2))
    monkeypatch.setattr(memory, "smallest_program", lambda *_: program)
    monkeypatch.setattr(memory, "planned_memory", planned)
    monkeypatch.setattr(memory, "process_bytes", lambda: 5000)
    found = predict_memory(config, dataset, 2, 8005, with_program=with_program)
    assert asked[:2] == [4, 8]
    # 1,000 + 5 n <= 8,005, or 5,000 + 2 (800 + 5 n) <= 8,005, for an even number of images.
    assert found["batch_size"] == (140 if with_program else 1400)


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
    assert next_one + found["bytes_per_image"] * multiple > budget


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
