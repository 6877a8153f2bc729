import jax
import numpy as np
from flax import nnx

from tests.tolerance import assert_close
from train.bench.split import NAMES, _measure, _parts, has_parts
from train.bench.work import network_work, nominal_flops
from train.learn.network import build_model
from train.learn.objective import Objective
from train.learn.program import assemble


def test_the_parts_together_are_the_network(config, dataset):
    """The loss of the last part is the network's own, and the work is all there."""
    quick = {"conv_kernel": 1, "primary_kernel": 1}  # compiles faster
    config = config.changed(routing="dynamic-prior", model_options=config.model.options | quick)
    program = assemble(config, dataset, devices=2)
    share = config.schedule.batch_size // 2
    parts = {name: (function, arguments) for name, function, arguments in _parts(program)}
    assert tuple(parts) == NAMES

    function, arguments = parts["decoder"]
    loss, _ = jax.jit(function)(*arguments)
    objective = Objective.of(config)
    images, labels = np.float32(dataset.train.images[:share]) / 255, dataset.train.labels[:share]
    output = objective.apply(program.model(), images, labels, training=True)
    expected = objective.losses(output, images, labels)["loss"].mean()
    assert_close(loss, expected, reduction_length=64)

    work = {name: nominal_flops(function, *a) for name, (function, a) in parts.items()}
    _, training = network_work(config, dataset.image_shape, dataset.num_classes)
    assert sum(work.values()) == training * share
    assert work["optimiser"] == 0

    with jax.debug_nans(False):  # which keeps what was donated
        part = _measure("optimiser", *parts["optimiser"], repetitions=2, seconds=1e-3)
    assert len(part.seconds) == 2
    assert min(part.seconds) > 0
    state = (program.state.params, program.state.optimizer)
    assert part.memory.aliased >= sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    jax.block_until_ready(state)  # the program's own is still there


def test_a_routing_without_votes_is_one_part(config, dataset):
    config = config.changed(
        model_options=config.model.options | {"routing_implementation": "recompute"}
    )
    parts = {name: parts for name, *parts in _parts(assemble(config, dataset, devices=1))}
    assert tuple(parts) == tuple(name for name in NAMES if name != "votes")
    function, arguments = parts["routing"]
    shapes = jax.eval_shape(function, *arguments)[0]
    assert shapes.coupling.shape == (config.schedule.batch_size, 8, 3)


def test_other_networks_have_no_parts(config):
    assert has_parts(build_model(config, (8, 8, 1), 3))
    assert not has_parts(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
