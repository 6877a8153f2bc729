import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from tests.tolerance import assert_close
from train.learn.metrics import merge
from train.learn.objective import Objective
from train.learn.pmap import replicate
from train.learn.trainer import STEPS_PER_DISPATCH, Trainer, assemble
from train.system.errors import UserError


def test_only_the_first_examples_are_trained_with(config, dataset):
    trainer = assemble(config.changed(train_examples=9), dataset, devices=1)
    np.testing.assert_array_equal(trainer.dataset.train.images, dataset.train.images[:9])
    assert max(batch["indices"].max() for batch in trainer.feed.batches(0, 9)) == 8
    assert trainer.dataset.test is dataset.test


def test_the_average_is_what_is_scored_and_used(config, dataset):
    trainer = assemble(config.changed(ema_decay=0.5), dataset, devices=2)
    weights = []
    for batch in trainer.feed.batches(0, 3):
        trainer.train([batch])
        weights.append(jax.tree.map(np.array, trainer.state.params))
    share = np.float32([1, 2, 4]) / 7
    total = jax.tree.map(lambda *xs: sum(s * x for s, x in zip(share, xs, strict=True)), *weights)
    jax.tree.map(assert_close, trainer.state.average, total)

    used = nnx.to_pure_dict(nnx.state(trainer.model(), nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, used, trainer.state.average)
    measured = trainer.score(trainer.dataset.test)
    trainer.state = trainer.state._replace(params=trainer.state.average, average=None)
    assert trainer.score(trainer.dataset.test).metrics == measured.metrics
    trainer.state = trainer.state._replace(params=replicate(weights[-1], trainer.mesh))
    assert trainer.score(trainer.dataset.test).metrics != measured.metrics


def test_what_is_frozen_stays_bit_for_bit_and_has_no_optimiser_state(config, dataset):
    """Parameters, their average and statistics of batches, on three devices; the rest learns."""
    frozen = ["convolutions", "norms", "primary_caps"]
    config = config.changed(
        model="efficient_capsnet",
        routing="self-attention",
        model_options={
            "features": [4, 6],
            "kernel_sizes": [3, 3],
            "strides": [1, 2],
            "primary_dim": 3,
            "decoder_hidden": None,
        },
        batch_size=9,
        optimizer="adamw",
        weight_decay=0.1,
        ema_decay=0.5,
        freeze=frozen,
    )
    trainer = assemble(config, dataset, devices=3)
    minus_zero = jax.tree.map(lambda x: x.at[..., 0].set(-0.0), trainer.state.params)
    trainer.state = trainer.state._replace(params=minus_zero, average=minus_zero)

    def values():
        state = trainer.state
        trees = {"params": state.params, "average": state.average, "stats": state.model_state}
        flat, _ = jax.tree_util.tree_flatten_with_path(trees)
        return {(p[0].key, p[1].key, str(p)): np.asarray(leaf).tobytes() for p, leaf in flat}

    before = values()
    for batch in trainer.feed.batches(0, 3):
        trainer.train([batch])
    after = values()
    kept = {path for path in before if before[path] == after[path]}
    assert kept == {path for path in before if path[1] in frozen}
    assert {path[0] for path in kept} == {"params", "average", "stats"}
    text = str(jax.tree_util.tree_leaves_with_path(trainer.state.optimizer))
    assert "class_caps" in text
    assert not any(name in text for name in frozen)


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (
            ["feature"],
            r"unknown part .* in --freeze 'feature' \(did you mean features\?\), choose from: c",
        ),
        (["features", "primary_caps", "class_caps", "decoder"], "--freeze has all parts of the"),
    ],
)
def test_what_cannot_be_frozen(config, dataset, freeze, message):
    with pytest.raises(UserError, match=message):
        assemble(config.changed(freeze=freeze), dataset, devices=1)


@pytest.mark.parametrize(("loss", "devices"), [("margin", 4), ("spread", 1), ("cross_entropy", 1)])
def test_balanced_classes_do_alike_whatever_their_images(config, dataset, loss, devices):
    """A step on all training images minimises the mean over classes of their mean losses."""
    chosen = np.flatnonzero(np.cumsum(dataset.train.labels == 2) * (dataset.train.labels == 2) < 3)
    train = dataset.train.take(chosen[: len(chosen) // 4 * 4])
    data = dataclasses.replace(dataset, train=train, class_names=("a", "b", "c", "not there"))
    counts = np.bincount(train.labels)
    assert counts.max() > 3 * counts.min()
    config = config.changed(
        **{"loss": loss, "class_weights": "balanced", "batch_size": len(train), "steps": 1},
        **{"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "schedule": "constant"},
        micro_batches=4 // devices,
    )
    trainer = assemble(config, data, devices=devices)
    objective, start = Objective.of(config), trainer.state.params
    graphdef, _, rest = nnx.split(trainer.model(), nnx.Param, ...)

    @jax.jit
    def gradient(params):
        def mean_of_classes(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            images, labels = objective.normalise(train.images, jnp.float32), train.labels
            output = objective.apply(model, images, labels, training=True)
            losses = objective.losses(output, images, labels, 0)["loss"]
            return sum(losses[labels == label].mean() for label in range(3)) / 3

        return jax.grad(mean_of_classes)(params)

    expected = jax.tree.map(lambda x, g: np.asarray(x - g), start, gradient(start))
    (batch,) = trainer.feed.batches(0, 1)
    metrics = merge([trainer.train([batch])])
    jax.tree.map(
        lambda x, wanted: assert_close(x, wanted, reduction_length=64 * 64),
        trainer.state.params,
        expected,
    )
    # What is reported has no weights, as in an evaluation.
    plain = assemble(config.changed(class_weights="none"), data, devices=devices)
    assert merge([plain.train([batch])])["loss"] == pytest.approx(metrics["loss"], rel=1e-6)


@pytest.mark.parametrize("model", ["cnn", "matrix_capsnet"])
def test_networks_without_a_decoder_learn_pairs(config, pairs, model):
    options = {
        "cnn": {"features": [4], "hidden": [8]},
        "matrix_capsnet": {
            "conv_features": 4,
            "primary_types": 2,
            "caps_types": [2],
            "caps_kernels": [3],
            "caps_strides": [2],
        },
    }[model]
    small = config.changed(
        dataset="multi_mnist",
        train_examples=40,
        model=model,
        model_options=options,
        routing="em" if model == "matrix_capsnet" else "dynamic",
        routing_iterations=1,
        loss="cross_entropy",
    )
    trainer = assemble(small, pairs, devices=1)
    metrics = merge([trainer.train(list(trainer.feed.batches(0, 2)))])
    assert np.isfinite(metrics["loss"])
    assert "reconstruction_loss" not in metrics
    assert trainer.score(trainer.dataset.test).predictions.shape == (10, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_weights": "balanced"},
            "2 classes each, but --class-weights are for images of one",
        ),
        ({"loss": "spread"}, "images are of 2 classes each, but the spread loss is of one"),
        ({"max_shift": 16}, "--max-shift is 16, but the images of .* are 16x16"),
        (
            {"micro_batches": 2, "model": "efficient_capsnet", "routing": "self-attention"},
            "--micro-batches is 2, but efficient_capsnet normalises a batch as a whole",
        ),
    ],
)
def test_what_does_not_fit_is_refused(config, pairs, changes, message):
    options = {"features": [4], "kernel_sizes": [3], "strides": [2], "primary_dim": 2}
    if "model" in changes:
        changes = {**changes, "model_options": options}
    with pytest.raises(UserError, match=message):
        assemble(config.changed(dataset="multi_mnist", **changes), pairs, devices=1)


# --- When a dispatch ends


class Course(Trainer):
    """A trainer of which only the course counts."""

    def __init__(self, total, intervals, capacity=STEPS_PER_DISPATCH):
        self._values = total, tuple(intervals), capacity

    total_steps = property(lambda self: self._values[0])
    intervals = property(lambda self: self._values[1])
    capacity = property(lambda self: self._values[2])


@given(
    total=st.integers(1, 2000),
    intervals=st.lists(st.integers(1, 500), min_size=3, max_size=3),
    limits=st.lists(st.integers(1, 70), min_size=1),
)
def test_a_run_stops_at_everything_that_is_due_and_at_its_end(total, intervals, limits):
    due = {step for every in intervals for step in range(every, total + 1, every)} | {total}
    trainer, step, stops = Course(total, intervals), 0, set()
    while step < total:
        most = limits[len(stops) % len(limits)]
        count = trainer.steps_until_due(step, most)
        assert 1 <= count <= min(most, STEPS_PER_DISPATCH)
        step += count
        stops.add(step)
    assert step == total
    assert due <= stops


def test_a_run_stops_nowhere_else_where_it_may_go_on():
    trainer = Course(98, (10, 23, 500), capacity=64)
    counts = [trainer.steps_until_due(step, 64) for step in (0, 20, 23, 96)]
    assert counts == [10, 3, 7, 2]
    assert trainer.steps_until_due(0, 4) == 4


@pytest.mark.parametrize(("bytes_per_batch", "steps"), [(1, 16), (2**22, 4), (2**25, 1)])
def test_there_is_room_for_a_step_and_not_for_too_much(bytes_per_batch, steps):
    trainer = object.__new__(Trainer)
    trainer.feed = SimpleNamespace(batch_bytes=bytes_per_batch)
    assert trainer.capacity == steps


def test_a_step_is_lowered_for_any_batch(config, dataset):
    trainer = assemble(config, dataset, devices=2)
    lowered = trainer.lower(4096)  # more than there are examples
    assert lowered.in_avals[0][2]["indices"].shape == (2, trainer.capacity, 2048)


@pytest.mark.parametrize(
    ("feed_kind", "changes"),
    [("resident", {}), ("streaming", {"ema_decay": 0.9, "micro_batches": 2})],
)
def test_a_step_that_is_compiled_ahead_is_the_one_that_is_taken(
    config, dataset, caplog, feed_kind, changes
):
    """Traced from shapes and compiled once, by another thread; the same numbers come out."""
    plain = assemble(config.changed(**changes), dataset, feed_kind=feed_kind, devices=2)
    (batch,) = plain.feed.batches(0, 1)
    expected = merge([plain.train([batch])])
    with jax.log_compiles(), caplog.at_level("WARNING", "jax"):
        trainer = assemble(
            config.changed(**changes), dataset, feed_kind=feed_kind, devices=2, trace=True
        )
        trainer.compile_ahead()
        assert trainer.compiled is not None
        trainer.compiled.result()
        before = len(caplog.records)
        metrics = trainer.train([batch])
        assert caplog.records[before:] == []
    assert before
    assert merge([metrics]) == expected
