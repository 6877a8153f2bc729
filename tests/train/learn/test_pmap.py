import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerance import assert_close
from train.learn.metrics import merge
from train.learn.pmap import data_mesh, make_dispatch
from train.learn.trainer import assemble
from train.system.errors import UserError


@pytest.fixture
def train(programs, dataset):
    """Takes three steps, each in a dispatch of its own: the trainer, and their metrics."""

    def steps(config, data=dataset, **options):
        trainer = programs(config, data, **options)
        batches = trainer.feed.batches(0, 3)
        return trainer, [merge([trainer.train([batch])]) for batch in batches]

    return steps


def assert_alike(ours, theirs):
    """Trained by the same steps, on other devices or in other parts."""
    for actual, wanted in zip(ours[1], theirs[1], strict=True):
        assert actual.keys() == wanted.keys()
        for name in actual:
            value, expected = np.float32(actual[name]), np.float32(wanted[name])
            assert_close(value, expected, reduction_length=64 * 8)
    params = [jax.tree.leaves(trainer.state.params) for trainer, _ in (ours, theirs)]
    for leaf, expected in zip(*params, strict=True):
        # Adam divides by the size of a gradient, so that its rounding is that of the largest one.
        assert_close(leaf, expected, reduction_length=64 * 64)


@pytest.mark.parametrize("devices", [2, 8])
def test_the_number_of_devices_changes_no_result(config, train, devices):
    spread = train(config, devices=devices)
    assert_alike(spread, train(config, devices=1))
    state = spread[0].state
    for leaf in jax.tree.leaves((state.params, state.optimizer)):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == devices
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


def test_devices_parts_and_feeds_change_no_result_for_pairs(config, train, pairs):
    config = config.changed(dataset="multi_mnist", train_examples=40, max_shift=1)
    alone = train(config, pairs, devices=1, feed_kind="resident")
    assert {"margin_loss", "reconstruction_loss", "accuracy"} <= alone[1][0].keys()
    in_parts = config.changed(micro_batches=4, remat=True)
    assert_alike(train(in_parts, pairs, devices=1, feed_kind="streaming"), alone)
    assert_alike(train(config, pairs, devices=4, feed_kind="resident"), alone)


def test_a_batch_is_normalised_as_a_whole_on_any_number_of_devices(config, train):
    options = {"features": [4], "kernel_sizes": [3], "strides": [2], "primary_dim": 2}
    normalised = config.changed(
        model="efficient_capsnet",
        routing="self-attention",
        model_options={**options, "class_dim": 4, "decoder_hidden": [8]},
    )
    alone, expected = train(normalised, devices=1)
    spread, metrics = train(normalised, devices=4)
    for actual, wanted in zip(metrics, expected, strict=True):
        assert_close(np.float32(actual["loss"]), np.float32(wanted["loss"]), reduction_length=64)
    statistics = [jax.tree.leaves(trainer.state.model_state) for trainer in (spread, alone)]
    for ours, theirs in zip(*statistics, strict=True):
        assert_close(ours, theirs, reduction_length=64 * 8)
        assert np.abs(ours - np.round(ours)).max() > 0  # neither zeros nor ones any more


def test_logits_shared_by_the_batch_are_shared_by_the_devices(config, dataset, train):
    shared = config.changed(routing_options={"shared_logits": True})
    alone, expected = train(shared, devices=1)
    _, metrics = train(shared, devices=4)
    for actual, wanted in zip(metrics, expected, strict=True):
        loss, expected_loss = np.float32(actual["loss"]), np.float32(wanted["loss"])
        assert_close(loss, expected_loss, reduction_length=64 * 8)
    _, other = train(config, devices=1)
    assert other[0]["loss"] != expected[0]["loss"]
    images = jnp.asarray(dataset.test.images, jnp.float32) / 255
    output = jax.eval_shape(alone.model(), images)  # outside of any mapped axis
    assert output.lengths.shape == (10, 3)


def test_how_steps_are_cut_into_dispatches_changes_no_bit(config, dataset, programs):
    results = []
    for cut in ([1, 1, 1, 1], [4], [3, 1]):
        trainer = programs(config, dataset, devices=2)
        rest = iter(list(trainer.feed.batches(0, 4)))
        with jax.no_tracing(bool(results)):  # the first has made the program for all
            metrics = [trainer.train(list(itertools.islice(rest, count))) for count in cut]
        assert int(trainer.state.step) == 4
        learned = (trainer.state.params, trainer.state.optimizer)
        results.append((merge(metrics), jax.tree.map(np.asarray, learned)))
    for metrics, learned in results[1:]:
        assert metrics == results[0][0]
        jax.tree.map(np.testing.assert_array_equal, learned, results[0][1])


def test_micro_batches_and_devices_have_the_same_loss_curve(config, dataset):
    """Of one batch, on which it falls, with all augmentation there is."""
    config = config.changed(
        max_shift=1, crop=7, max_brightness=0.2, max_contrast=0.3, batch_size=16, learning_rate=0.01
    )
    curves, steps = {}, 32
    for devices, parts in ((1, 1), (1, 4), (4, 2)):
        trainer = assemble(config.changed(micro_batches=parts), dataset, devices=devices)
        (batch,) = trainer.feed.batches(0, 1)
        room = trainer.capacity
        metrics = [trainer.train([batch] * room) for _ in range(steps // room)]
        losses, accuracies = (
            np.concatenate([some[name].total / some[name].examples for some in metrics])
            for name in ("loss", "accuracy")
        )
        assert all((some["loss"].examples == 16).all() for some in metrics)
        curves[devices, parts] = losses
        expected = curves.setdefault("accuracy", accuracies)
        np.testing.assert_array_equal(accuracies, expected)
    del curves["accuracy"]
    for curve in curves.values():
        assert_close(curve, curves[1, 1], reduction_length=100)
    assert curves[1, 1][-1] < 0.8 * curves[1, 1][0]


def test_each_step_of_a_dispatch_has_its_metrics_and_changes_every_parameter(
    config, dataset, programs
):
    trainer = programs(config, dataset, devices=2)
    before = jax.tree.map(np.array, trainer.state.params)
    metrics = trainer.train(list(trainer.feed.batches(0, 1)))
    assert trainer.capacity > 1
    counted = {"skipped": 1, "gradient_norm": 1, "update_norm": 1, "dead_capsules": 3}
    assert counted.keys() < metrics.keys()
    for name, mean in metrics.items():
        assert mean.total.shape == mean.examples.shape == (trainer.capacity,)
        assert mean.examples[0] == counted.get(name, config.schedule.batch_size)
        assert not np.any(mean.total[1:])
        assert not np.any(mean.examples[1:])
    for name in ("loss", "gradient_norm", "update_norm"):
        assert metrics[name].total[0] > 0
    assert int(trainer.state.step) == 1
    after = trainer.state.params
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.any(old != np.asarray(new))


def test_a_wish_to_stop_comes_back_with_the_dispatch(config, dataset, programs):
    trainer = programs(config, dataset, devices=2)
    batches = list(trainer.feed.batches(0, 2))
    for stop, batch in zip((True, False), batches, strict=True):
        trainer.train([batch], stop=stop)
        assert int(trainer.stopping) == stop


def test_batches_lie_device_by_device_and_step_by_step():
    mesh = data_mesh(4, 2)
    batches = [{"x": np.arange(8).reshape(4, 2) + 100 * step} for step in range(2)]
    stacked, count, stop = make_dispatch(batches, 3, mesh, stop=True)
    assert (count, stop.tolist()) == (2, [1, 1])
    assert stacked["x"].shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(stacked["x"][1, 0], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(stacked["x"][0, 1], [[100, 101], [102, 103]])
    assert not stacked["x"][:, 2].any()
    with pytest.raises(ValueError, match="2 batches are more than the 1 there is room for"):
        make_dispatch(batches, 1, mesh)


def test_streaming_and_resident_feeds_train_alike(config, dataset, programs):
    runs = []
    for kind in ("resident", "streaming"):
        trainer = programs(config, dataset, feed_kind=kind, devices=2)
        trainer.train(list(trainer.feed.batches(0, 6)))
        runs.append(jax.tree.map(np.asarray, trainer.state.params))
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_bfloat16_keeps_float32_parameters(config, train):
    trainer, metrics = train(config.changed(dtype="bfloat16"), devices=2)
    _, expected = train(config, devices=2)
    assert {leaf.dtype for leaf in jax.tree.leaves(trainer.state.params)} == {jnp.dtype("float32")}
    assert_close(np.float32(metrics[0]["loss"]), np.float32(expected[0]["loss"]), dtype="bfloat16")
    assert metrics[0]["loss"] != expected[0]["loss"]


@pytest.mark.parametrize(
    ("batch_size", "devices", "message"),
    [
        (8, 3, "a batch of 8 cannot be shared equally by 3 devices"),
        (8, 9, "--devices is 9, but this machine has 1 to 8"),
        (8, 0, "--devices is 0"),
        (10, None, "a batch of 10 cannot be shared equally by 8 devices"),
        (16, 2, "a device's 8 images of a batch cannot be cut into 3 equal --micro-batches"),
    ],
)
def test_a_batch_that_does_not_fit_the_devices_is_refused(batch_size, devices, message):
    with pytest.raises(UserError, match=message):
        data_mesh(batch_size, devices, micro_batches=3 if batch_size == 16 else 1)
