"""Steps whose loss or gradient is not finite: skipped, counted, and in the end a reason to stop."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerance import assert_close
from train import data
from train.data import Batch
from train.learn.metrics import Mean, merge
from train.learn.network import build_model
from train.learn.optimizer import build_optimizer
from train.learn.pmap import data_mesh, make_dispatch, make_train_step, replicate
from train.learn.step import AXIS
from train.learn.training_state import initial_state
from train.loop import loop
from train.loop.guard import Guard, first_not_finite
from train.system.errors import DivergedError


@pytest.fixture(autouse=True)
def _nans_are_expected():
    with jax.debug_nans(False):
        yield


@pytest.fixture
def config(config):
    """White pixels are so large that their square is infinite; black ones are zero."""
    return config.changed(input_std=1e-37, max_skipped=2)


def with_white(dataset, examples):
    """The data set, all images black but these of the training split."""
    images = np.zeros_like(dataset.train.images)
    images[examples] = 255
    train = dataclasses.replace(dataset.train, images=images)
    test = dataclasses.replace(dataset.test, images=np.zeros_like(dataset.test.images))
    return dataclasses.replace(dataset, train=train, test=test)


@pytest.fixture(scope="module")
def white(dataset):
    return with_white(dataset, slice(None))


def values(tree):
    return jax.tree.map(np.array, tree)


@pytest.mark.parametrize("changes", [{}, {"micro_batches": 2, "ema_decay": 0.9}])
def test_a_bad_step_changes_nothing_but_the_position(config, dataset, programs, changes):
    trainer = programs(config.changed(**changes), with_white(dataset, [7]), devices=2)
    before, skipped, made = values(trainer.state.params), [], []
    for batch in trainer.feed.batches(0, 5):  # an epoch
        metrics = merge([trainer.train([batch])])
        state = trainer.state
        after = values((state.params, state.optimizer, state.average))
        is_bad = 7 in batch["indices"]
        skipped.append(is_bad)
        assert metrics["skipped"] == is_bad
        assert np.isnan(metrics["gradient_norm"]) == is_bad
        assert np.isnan(metrics["update_norm"]) == is_bad
        assert int(state.skipped.in_a_row) == is_bad
        if is_bad:
            jax.tree.map(np.testing.assert_array_equal, after, before)
        else:
            made.append(after[0])
        before = after
    assert sum(skipped) == 1
    assert (int(trainer.state.step), int(trainer.state.skipped.total)) == (5, 1)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(before))
    if decay := changes.get("ema_decay"):
        weights = decay ** np.arange(len(made))[::-1]
        average = jax.tree.map(lambda *x: np.average(x, axis=0, weights=weights), *made)
        jax.tree.map(lambda x, y: assert_close(x, y, reduction_length=5), before[2], average)


def test_after_too_many_bad_steps_the_devices_take_no_more_and_the_run_is_given_up(
    config, white, programs, monkeypatch, tmp_path
):
    trainer = programs(config, white, devices=2)
    before = values(trainer.state.params)
    batches = list(trainer.feed.batches(0, 5))
    taken = [int(trainer.train(batches)["skipped"].examples.sum()) for _ in range(2)]
    assert taken == [3, 0]
    assert int(trainer.state.step) == 3
    jax.tree.map(np.testing.assert_array_equal, values(trainer.state.params), before)

    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: white)
    monkeypatch.setattr(loop, "assemble", programs)
    out = tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        loop.fit(config, out=out, devices=2)
    message = str(caught.value)
    assert "not finite in 3 steps in a row, up to step 2 with the training examples" in message
    assert "Checkpoint 3 holds the parameters from before" in message
    found = json.loads((out / "bad-numbers.json").read_text())
    assert found["step"] == 2
    assert len(found["training_examples"]) == config.schedule.batch_size
    assert found["first_not_finite"] in message
    assert (out / "checkpoints" / "3").is_dir()
    assert not (out / "summary.json").exists()

    # The next three steps are no better, and where the diagnosis needs more memory than there is,
    # that is not what ends the run.
    def too_large(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("train.loop.guard.first_not_finite", too_large)
    with pytest.raises(DivergedError, match="up to step 5 with .* is: not known, since the whole"):
        loop.fit(config, out=out, devices=2, resume=True)


def metrics(*skipped, capacity=6):
    """Of a dispatch, of whose steps some were skipped."""
    total = np.zeros(capacity, np.float32)
    total[: len(skipped)] = skipped
    return {"skipped": Mean(total, np.arange(capacity) < len(skipped))}


def test_steps_are_counted_over_dispatches(config, dataset, programs, monkeypatch):
    trainer, given_up = programs(config, dataset, devices=2), []
    skipped = trainer.state.skipped._replace(in_a_row=1)
    trainer.state = trainer.state._replace(skipped=skipped)
    guard = Guard(trainer, None, None)
    monkeypatch.setattr(guard, "_give_up", given_up.append)
    guard.check(10, metrics(1, 0, 1))
    guard.check(13, metrics(1))
    assert given_up == []
    guard.check(14, metrics(1, 0, 0))
    assert given_up == [14]


def test_the_first_tensor_that_is_not_finite_is_named(config, dataset, white, pairs, programs):
    indices = np.arange(8)
    trainer = programs(config, white, devices=2)
    assert first_not_finite(trainer, 0, indices) == "loss loss"
    trainer.dataset = with_white(dataset, [])
    assert first_not_finite(trainer, 0, indices) is None
    kernel = trainer.state.params["decoder"]["layers"][0]["kernel"]
    trainer.state.params["decoder"]["layers"][0]["kernel"] = kernel.at[0, 0].set(np.nan)
    assert first_not_finite(trainer, 0, indices) == "parameter decoder.layers.0.kernel"

    of_pairs = config.changed(dataset="multi_mnist", train_examples=40, input_std=1.0)
    trainer = programs(of_pairs, pairs, devices=2)
    assert first_not_finite(trainer, 0, indices) is None
    infinite = jax.tree.map(lambda x: x * np.inf, trainer.state.params)
    trainer.state = trainer.state._replace(params=infinite)
    assert first_not_finite(trainer, 0, indices).startswith("parameter")


@pytest.mark.parametrize("implementation", ["xla", "recompute"])
def test_images_of_any_number_leave_finite_parameters(config, implementation):
    options = {**config.model.options, "routing_implementation": implementation}
    config = config.changed(input_std=1.0, max_shift=1, model_options=options)
    mesh, optimizer = data_mesh(8, 1), build_optimizer(config)
    model = build_model(config, (8, 8, 1), 3, axis=AXIS)
    graphdef, begin = initial_state(model, optimizer, config)

    def constant_images(value, labels):
        return Batch(jnp.full((8, 8, 8, 1), 255 * value), labels)  # pixels are divided by 255

    step = make_train_step(graphdef, optimizer, constant_images, config, mesh)
    dispatch = make_dispatch([np.arange(8, dtype=np.int32) % 3] * 3, 3, mesh)
    for value in (0.0, 1.0, 1e30, -1e30, math.inf, math.nan):
        state = replicate(jax.tree.map(jnp.copy, begin), mesh)
        state, metrics, _ = step(state, np.float32(value), *dispatch)
        for leaf in jax.tree.leaves((state.params, state.optimizer)):
            assert np.all(np.isfinite(leaf)), value
        # Either the numbers are good, or all are refused and counted.
        skipped = int(state.skipped.total)
        assert skipped in ((0,) if value in (0, 1) else (0, 3) if np.isfinite(value) else (3,))
        assert merge([metrics])["skipped"] == skipped / 3
