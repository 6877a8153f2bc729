from types import SimpleNamespace

import jax
import numpy as np
import pytest

from train.bench import training
from train.bench.timing import Rounds
from train.bench.training import (
    measure_speed,
    measure_training,
    network_flops,
    smallest_program,
    steps_of,
)
from train.config.fit_config import FitConfig
from train.data import Dataset, Split
from train.learn.trainer import assemble
from train.presets import get_preset
from train.system.errors import DoesNotFitError, UserError


def test_steps_are_those_of_training(config, dataset):
    feed = assemble(config, dataset, devices=2).feed
    seen = []
    program = SimpleNamespace(feed=feed, train=seen.append, capacity=2)
    take = steps_of(program)
    take(3)
    take(1)
    assert [len(dispatch) for dispatch in seen] == [2, 1, 1]
    taken = [batch for dispatch in seen for batch in dispatch]
    jax.tree.map(np.testing.assert_array_equal, taken, list(feed.batches(0, 4)))


def test_the_smallest_batch_has_an_image_for_each_of_the_micro_batches(config, dataset):
    program = smallest_program(config.changed(micro_batches=4), dataset, devices=2)
    assert program.config.schedule.batch_size == 8
    assert smallest_program(config, dataset, devices=2).config.schedule.batch_size == 2


def test_no_device_is_refused(config, dataset):
    with pytest.raises(UserError, match="--devices is 0"):
        smallest_program(config, dataset, devices=0)


def test_all_that_a_configuration_costs(config, dataset, monkeypatch):
    """The rates by a clock on which a step takes 2 seconds, the rest as it is."""

    def take(run, rounds):
        run(1)
        return [4.0, 1.0, 2.0]

    monkeypatch.setattr(training, "time_rounds", take)
    monkeypatch.setattr(training, "measure_parts", lambda program, rounds: [rounds])
    quick = {"conv_kernel": 1, "primary_kernel": 1}
    config = config.changed(model_options=config.model.options | quick)
    with jax.debug_nans(False):  # which keeps what was donated
        found = measure_training(config, dataset, 2, Rounds(3, 1.0))
    assert (found["step_seconds"], found["images_per_second"]) == (2, 4)
    assert (found["slowest"], found["fastest"], found["rounds"]) == (2, 8, 3)
    assert found["parts"] == [Rounds(3, 0.25)]
    assert found["gradient_bytes"] == 4 * found["parameters"]
    memory = found["memory"]
    # The state of Adam is three times the parameters, and it is replaced.
    assert memory["arguments"] > memory["aliased"] > 3 * found["gradient_bytes"]
    work = found["flops_per_image"]
    assert 2 * work["forward"] < work["training"] < 4 * work["forward"]
    assert work["training_compiled"] > work["forward_compiled"] > work["forward"] / 10


def test_what_is_larger_than_the_memory_is_not_run(config, dataset, monkeypatch):
    monkeypatch.setattr(training, "room", lambda devices: 1000)
    with pytest.raises(DoesNotFitError, match="takes .* more than the 1,000 there are"):
        measure_training(config, dataset, 1, Rounds())


def test_memory_that_runs_out_is_bad_input(config, dataset, monkeypatch):
    def assemble_nothing(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(training, "assemble", assemble_nothing)
    with pytest.raises(DoesNotFitError, match="a batch of 8 does not fit"):
        measure_speed(config, dataset, 1, Rounds())


def images(side, classes):
    """A data set of one image."""
    split = Split(np.zeros((1, side, side, 1), np.uint8), np.zeros(1, np.int32))
    return Dataset("one", split, split, tuple(map(str, range(classes))))


def test_the_paper_s_network_has_the_work_counted_by_hand():
    forward, training = network_flops(FitConfig.of(), images(28, 10))
    first, second = 20 * 20 * 9 * 9 * 1 * 256, 6 * 6 * 9 * 9 * 256 * 256
    votes = 1152 * 10 * 16 * 8
    decoder = 160 * 512 + 512 * 1024 + 1024 * 784
    passes_over_votes = 5 * 1152 * 10 * 16  # sums in three iterations, scalar products in between
    by_hand = 2 * (first + second + votes + decoder + passes_over_votes)
    # Biases, squash and softmax come on top.
    assert by_hand < forward < 1.002 * by_hand
    # Backward, each product has two of its size; the images have no gradient.
    by_hand = 2 * (2 * first + 3 * (second + votes + decoder + passes_over_votes))
    assert by_hand < training < 1.003 * by_hand


def test_how_a_network_is_computed_changes_no_work(config, dataset):
    options = config.model.options | {"routing_implementation": "recompute"}
    changed = config.changed(model_options=options)
    assert network_flops(changed, dataset) == network_flops(config, dataset)


def test_the_work_of_a_network_that_normalises_a_batch_is_counted_too():
    preset = get_preset("digits-efficient_capsnet")
    forward, training = network_flops(preset, images(8, 10))
    assert 2 * forward < training < 3 * forward


def test_two_classes_are_decoded_one_after_the_other(config, pairs):
    single, both = (network_flops(config, data)[0] for data in (images(16, 3), pairs))
    decoder = 2 * (3 * 4 * 8 + 8 * 256)  # poses to hidden to image, multiply and add
    assert decoder < both - single < 1.3 * decoder
