import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.tolerance import assert_close
from train.learn.metrics import merge
from train.learn.program import assemble
from train.learn.scoring import evaluate_split
from train.learn.step import data_mesh, replicate, stack_batches
from train.learn.update import in_parts, move_average
from train.system.errors import UserError


def train(config, dataset, *, devices, steps=3):
    program = assemble(config, dataset, devices=devices)
    metrics = [merge([program.train([batch])]) for batch in program.feed.batches(0, steps)]
    return program, metrics


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_the_number_of_devices_changes_no_result(config, dataset, devices):
    alone, expected = train(config, dataset, devices=1)
    together, metrics = train(config, dataset, devices=devices)
    for actual, wanted in zip(metrics, expected, strict=True):
        assert actual.keys() == wanted.keys()
        for name in actual:
            assert_close(
                np.float32(actual[name]), np.float32(wanted[name]), reduction_length=64 * 8
            )
    for ours, theirs in zip(
        jax.tree.leaves(together.state.params), jax.tree.leaves(alone.state.params), strict=True
    ):
        # Adam divides by the size of a gradient, so that its rounding is that of the largest one.
        assert_close(ours, theirs, reduction_length=64 * 64)


def test_a_batch_is_normalised_as_a_whole_on_any_number_of_devices(config, dataset):
    options = {"features": [4], "kernel_sizes": [3], "strides": [2], "primary_dim": 2}
    normalised = config.changed(
        model="efficient_capsnet",
        routing="self-attention",
        model_options={**options, "class_dim": 4, "decoder_hidden": [8]},
    )
    alone, expected = train(normalised, dataset, devices=1)
    together, metrics = train(normalised, dataset, devices=4)
    for actual, wanted in zip(metrics, expected, strict=True):
        assert_close(np.float32(actual["loss"]), np.float32(wanted["loss"]), reduction_length=64)
    for ours, theirs in zip(
        jax.tree.leaves(together.state.model_state),
        jax.tree.leaves(alone.state.model_state),
        strict=True,
    ):
        assert_close(ours, theirs, reduction_length=64 * 8)
        assert np.abs(ours - np.round(ours)).max() > 0  # neither zeros nor ones any more


def test_only_the_first_examples_are_trained_with(config, dataset):
    program = assemble(config.changed(train_examples=9), dataset, devices=1)
    np.testing.assert_array_equal(program.dataset.train.images, dataset.train.images[:9])
    assert max(batch["indices"].max() for batch in program.feed.batches(0, 9)) == 8
    assert program.dataset.test is dataset.test


@pytest.mark.parametrize("devices", [1, 2])
def test_how_steps_are_cut_into_dispatches_changes_no_bit(config, dataset, devices):
    program = assemble(config.changed(max_shift=1), dataset, devices=devices)
    begin = jax.tree.map(jnp.copy, program.state)
    batches = list(program.feed.batches(0, 4))
    results = []
    for cut in ([1, 1, 1, 1], [4], [3, 1]):
        program.state = jax.tree.map(jnp.copy, begin)
        rest = iter(batches)
        with jax.no_tracing(bool(results)):  # the first has made the program for all
            metrics = [program.train(list(itertools.islice(rest, count))) for count in cut]
        assert int(program.state.step) == 4
        learned = (program.state.params, program.state.optimizer)
        results.append((merge(metrics), jax.tree.map(np.asarray, learned)))
    for metrics, learned in results[1:]:
        assert metrics == results[0][0]
        jax.tree.map(np.testing.assert_array_equal, learned, results[0][1])


def test_micro_batches_and_devices_have_the_same_loss_curve(config, dataset):
    """Fifty steps, with all augmentation there is."""
    config = config.changed(
        max_shift=1, crop=7, max_brightness=0.2, max_contrast=0.3, batch_size=16
    )
    curves = {}
    for devices, parts in ((1, 1), (1, 4), (4, 2)):
        change = config.changed(micro_batches=parts)
        program = assemble(change, dataset, devices=devices)
        metrics = program.train(list(program.feed.batches(0, 50)))
        mean = metrics["loss"]
        assert list(mean.examples[:50]) == [16] * 50
        curves[devices, parts] = np.asarray(mean.total[:50] / mean.examples[:50])
        accuracy = metrics["accuracy"].total
        np.testing.assert_array_equal(accuracy, curves.setdefault("accuracy", accuracy))
    del curves["accuracy"]
    for curve in curves.values():
        np.testing.assert_allclose(curve, curves[1, 1], rtol=1e-5)
    assert curves[1, 1][-1] < curves[1, 1][0]


def test_what_parts_of_a_batch_change_in_a_model_is_averaged_as_over_devices():
    def function(examples):
        return {"mean": jnp.mean(examples)}, {"sum": jnp.sum(examples)}

    for parts in (1, 2, 4):
        means, sums = in_parts(function, jnp.arange(8.0), parts)
        assert means == {"mean": 3.5}
        assert sums == {"sum": 28.0}


# --- The average of the parameters


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


def test_the_average_is_what_is_evaluated_and_used(config, dataset):
    decay = 0.5
    program = assemble(config.changed(ema_decay=decay), dataset, devices=2)
    weights = []
    for batch in program.feed.batches(0, 3):
        program.train([batch])
        weights.append(jax.tree.map(np.array, program.state.params))
    share = np.float32([1, 2, 4]) / 7
    total = jax.tree.map(lambda *xs: sum(s * x for s, x in zip(share, xs, strict=True)), *weights)
    jax.tree.map(assert_close, program.state.average, total)

    used = nnx.to_pure_dict(nnx.state(program.model(), nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, used, program.state.average)
    measured = program.evaluate()
    program.state = program.state._replace(params=program.state.average, average=None)
    assert program.evaluate().metrics == measured.metrics
    program.state = program.state._replace(params=replicate(weights[-1], program.mesh))
    assert program.evaluate().metrics != measured.metrics


def test_each_step_of_a_dispatch_has_its_metrics(config, dataset):
    program = assemble(config, dataset, devices=2)
    metrics = program.train(list(program.feed.batches(0, 1)))
    assert program.capacity > 1
    classes = program.dataset.num_classes
    counted = {"skipped": 1, "gradient_norm": 1, "update_norm": 1, "dead_capsules": classes}
    assert counted.keys() < metrics.keys()
    for name, mean in metrics.items():
        assert mean.total.shape == mean.examples.shape == (program.capacity,)
        assert mean.examples[0] == counted.get(name, config.schedule.batch_size)
        assert not np.any(mean.total[1:])
        assert not np.any(mean.examples[1:])
    assert metrics["loss"].total[0] > 0
    assert metrics["gradient_norm"].total[0] > 0
    assert metrics["update_norm"].total[0] > 0


def test_batches_lie_device_by_device_and_step_by_step():
    mesh = data_mesh(4, 2)
    batches = [{"x": np.arange(8).reshape(4, 2) + 100 * step} for step in range(2)]
    stacked = stack_batches(batches, 3, mesh)["x"]
    assert stacked.shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(stacked[1, 0], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(stacked[0, 1], [[100, 101], [102, 103]])
    assert not stacked[:, 2].any()
    with pytest.raises(ValueError, match="2 batches are more than the 1 there is room for"):
        stack_batches(batches, 1, mesh)


def test_every_device_holds_the_same_state(config, dataset):
    program, _ = train(config, dataset, devices=8)
    for leaf in jax.tree.leaves((program.state.params, program.state.optimizer)):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 8
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


def test_a_step_changes_every_parameter_and_counts_itself(config, dataset):
    program = assemble(config, dataset, devices=2)
    before = jax.tree.map(np.array, program.state.params)
    program.train(list(program.feed.batches(0, 1)))
    assert int(program.state.step) == 1
    for old, new in zip(
        jax.tree.leaves(before), jax.tree.leaves(program.state.params), strict=True
    ):
        assert np.any(old != np.asarray(new))


def test_the_loss_of_one_batch_falls(config, dataset):
    program = assemble(config.changed(learning_rate=0.01), dataset, devices=2)
    batch = next(iter(program.feed.batches(0, 1)))
    losses = [merge([program.train([batch])])["loss"] for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_streaming_and_resident_feeds_train_alike(config, dataset):
    runs = []
    for kind in ("resident", "streaming"):
        program = assemble(config, dataset, feed_kind=kind, devices=4)
        program.train(list(program.feed.batches(0, 6)))
        runs.append(jax.tree.map(np.asarray, program.state.params))
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_evaluation_counts_each_example_once(config, dataset):
    program = assemble(config, dataset, devices=4)
    evaluation = program.evaluate()
    model = program.model()
    output = model(jnp.asarray(dataset.test.images, jnp.float32) / 255)
    predictions = np.asarray(output.lengths.argmax(axis=-1))
    np.testing.assert_array_equal(evaluation.predictions, predictions)
    assert evaluation.metrics["accuracy"] == np.mean(predictions == dataset.test.labels)


def test_evaluation_does_not_depend_on_the_number_of_devices(config, dataset):
    results = []
    for devices in (1, 3):  # 256 is no multiple of 3
        program = assemble(config, dataset, devices=1)
        other = assemble(config.changed(batch_size=devices), dataset, devices=devices)
        state = jax.device_put(program.state, jax.tree.leaves(other.state.params)[0].sharding)
        results.append(evaluate_split(other.evaluation_step, state, dataset.test, other.mesh))
    np.testing.assert_array_equal(results[0].predictions, results[1].predictions)
    assert_close(
        np.float32(results[0].metrics["loss"]),
        np.float32(results[1].metrics["loss"]),
        reduction_length=64,
    )


def test_bfloat16_keeps_float32_parameters(config, dataset):
    half = config.changed(dtype="bfloat16")
    program, metrics = train(half, dataset, devices=2)
    _, expected = train(config, dataset, devices=2)
    assert {leaf.dtype for leaf in jax.tree.leaves(program.state.params)} == {jnp.dtype("float32")}
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


def test_logits_shared_by_the_batch_are_shared_by_the_devices(config, dataset):
    shared = config.changed(routing_options={"shared_logits": True})
    alone, expected = train(shared, dataset, devices=1)
    _, metrics = train(shared, dataset, devices=4)
    for actual, wanted in zip(metrics, expected, strict=True):
        assert_close(
            np.float32(actual["loss"]), np.float32(wanted["loss"]), reduction_length=64 * 8
        )
    _, other = train(config, dataset, devices=1)
    assert other[0]["loss"] != expected[0]["loss"]
    images = jnp.asarray(dataset.test.images, jnp.float32) / 255
    assert alone.model()(images).lengths.shape == (10, 3)  # outside of any mapped axis
