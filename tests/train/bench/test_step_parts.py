import jax
import numpy as np
import pytest
from flax import nnx

from capsjax import create_model
from tests.capsjax.models.family import SMALL
from tests.tolerance import assert_close
from train.bench import step_parts
from train.bench.costs import flops
from train.bench.step_parts import NAMES, measure_parts
from train.bench.timing import Rounds
from train.bench.training import network_flops
from train.learn.objective import Objective
from train.learn.trainer import assemble


@pytest.fixture
def quick(config):
    """A network that compiles fast."""
    options = {"conv_kernel": 1, "primary_kernel": 1}
    return config.changed(model_options=config.model.options | options)


def test_the_parts_add_up_to_the_network(quick, dataset):
    """The loss of the last part is the network's own, and the work is all there."""
    config = quick.changed(routing="dynamic-prior")
    program = assemble(config, dataset, devices=2)
    share = config.schedule.batch_size // 2
    found = {name: rest for name, *rest in step_parts._parts(program)}
    assert tuple(found) == NAMES

    function, arguments, _ = found["decoder"]
    loss, _ = jax.jit(function)(*arguments)
    objective = Objective.of(config)
    images, labels = np.float32(dataset.train.images[:share]) / 255, dataset.train.labels[:share]

    @jax.jit
    def loss_of(model):
        output = objective.apply(model, images, labels, training=True)
        return objective.losses(output, images, labels)["loss"].mean()

    assert_close(loss, loss_of(program.model()), reduction_length=64)

    work = {name: flops(plain, *arguments) for name, (_, arguments, plain) in found.items()}
    _, training = network_flops(config, dataset)
    optimiser = work.pop("optimiser")
    assert training * share <= sum(work.values()) < 1.03 * training * share
    assert optimiser > sum(leaf.size for leaf in jax.tree.leaves(program.state.params))


def test_a_routing_without_votes_is_one_part(config, dataset):
    config = config.changed(
        model_options=config.model.options | {"routing_implementation": "recompute"}
    )
    found = {name: part for name, *part in step_parts._parts(assemble(config, dataset, devices=1))}
    assert tuple(found) == tuple(name for name in NAMES if name != "votes")
    function, arguments, plain = found["routing"]
    shapes = jax.eval_shape(function, *arguments)
    assert shapes[0].coupling.shape == (config.schedule.batch_size, 8, 3)
    # Its work is that of the votes and of the routing, written plainly.
    plainly = jax.eval_shape(plain, *arguments)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.shape, b.shape), shapes, plainly)


def test_the_optimiser_s_state_is_replaced_and_the_program_s_own_kept(quick, dataset, monkeypatch):
    program = assemble(quick, dataset, devices=1)
    *_, (name, update, arguments, _) = step_parts._parts(program)
    assert name == "optimiser"

    def take(run, rounds):
        run(2)
        return [3.0, 1.0, 2.0]

    monkeypatch.setattr(step_parts, "time_rounds", take)
    with jax.debug_nans(False):  # which keeps what was donated
        part = step_parts.measure(update, arguments, Rounds(), carries=True)
    times = (part["fastest_seconds"], part["seconds"], part["slowest_seconds"])
    assert times == (1, 2, 3)
    state = (program.state.params, program.state.optimizer)
    assert part["memory"]["aliased"] >= sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    jax.block_until_ready(state)


@pytest.mark.parametrize("name", ["cnn", "sr_capsnet", "vb_capsnet"])
def test_other_networks_have_no_parts(name):
    """Two of them have layers of the same names, which were taken for those of `CapsNet`."""

    class Other:
        def model(self):
            return create_model(name, rngs=nnx.Rngs(0), **SMALL[name])

    assert measure_parts(Other(), Rounds()) == []
