import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from tests.tolerance import assert_close
from train.bench.split import NAMES, _parts, has_parts, measure_parts
from train.bench.work import network_work
from train.network import build_model
from train.program import assemble


@pytest.fixture
def program(config, dataset):
    return assemble(config, dataset, devices=2)


def test_the_parts_together_are_the_network(program, config, dataset):
    """The loss that the last part gives is the network's own, and the work is all there."""
    share = config.batch_size // 2
    losses = {}
    for name, function, arguments in _parts(program):
        if name == "decoder":
            losses["parts"], _ = function(*arguments)
    model = program.model()
    images = np.float32(dataset.train.images[:share]) / 255
    labels = dataset.train.labels[:share]
    from train.objective import Objective

    objective = Objective.of(config)
    output = objective.apply(model, images, labels, training=True)
    losses["whole"] = objective.losses(output, images, labels)["loss"].mean()
    assert_close(losses["parts"], losses["whole"], reduction_length=64)


def test_every_part_is_measured(program, config, dataset):
    parts = measure_parts(program, repetitions=2, seconds=1e-4)
    assert tuple(part.name for part in parts) == NAMES
    for part in parts:
        assert len(part.seconds) == 2
        assert min(part.seconds) > 0
        assert part.memory.total > 0
    _, training = network_work(config, dataset.image_shape, dataset.num_classes)
    assert sum(part.flops for part in parts) == training * config.batch_size // 2
    # The optimiser's new state takes the place of the old one.
    assert parts[-1].memory.aliased > 0
    jax.block_until_ready(program.state.params)  # and leaves the program's alone


def test_a_network_without_a_decoder_and_with_a_learned_prior_has_the_same_parts(config, dataset):
    changed = dataclasses.replace(
        config,
        routing="dynamic-prior",
        model_options={**config.model_options, "decoder_hidden": None},
    )
    program = assemble(changed, dataset, devices=1)
    assert tuple(name for name, _, _ in _parts(program)) == NAMES


def test_other_networks_have_no_parts(config):
    assert has_parts(build_model(config, (8, 8, 1), 3))
    assert not has_parts(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
