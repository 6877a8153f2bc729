"""Images of two classes, from end to end."""

import json

import jax
import numpy as np
import pytest

from tests.tolerance import assert_close
from train.learn.metrics import merge
from train.learn.program import assemble
from train.learn.scoring import evaluate_split
from train.learn.step import data_mesh
from train.loop import loop
from train.loop.guard import first_not_finite
from train.loop.loop import fit
from train.study.compare import runner as compare_command
from train.study.compare.seeds import SeedsProgram
from train.system.errors import DivergedError, UserError


@pytest.fixture
def config(config):
    return config.changed(dataset="multi_mnist", train_examples=40)


def train(config, pairs, *, steps=4, **options):
    program = assemble(config, pairs, **options)
    metrics = merge([program.train(list(program.feed.batches(0, steps)))])
    return program, metrics


@pytest.mark.parametrize("max_shift", [0, 1])
def test_devices_parts_and_feeds_change_no_result(config, pairs, max_shift):
    config = config.changed(max_shift=max_shift)
    alone, expected = train(config, pairs, devices=1, feed_kind="resident")
    assert {"margin_loss", "reconstruction_loss", "accuracy"} <= expected.keys()
    for parts, devices, feed in ((1, 4, "resident"), (4, 1, "streaming"), (1, 1, "streaming")):
        change = config.changed(micro_batches=parts, remat=parts > 1)
        other, metrics = train(change, pairs, devices=devices, feed_kind=feed)
        for name, value in expected.items():
            assert_close(np.float32(metrics[name]), np.float32(value), reduction_length=64 * 8)
        for ours, theirs in zip(
            jax.tree.leaves(other.state.params), jax.tree.leaves(alone.state.params), strict=True
        ):
            assert_close(ours, theirs, reduction_length=64 * 64)


def test_all_seeds_at_once_are_each_seed_by_itself(config, pairs):
    together = SeedsProgram(config, pairs.limited(train=40), [0, 1]).train().states
    for number, seed in enumerate((0, 1)):
        own = config.changed(seed=seed)
        alone, _ = train(own, pairs, devices=1, steps=config.schedule.steps)
        for ours, theirs in zip(
            jax.tree.leaves(together.params), jax.tree.leaves(alone.state.params), strict=True
        ):
            assert_close(ours[number], theirs, reduction_length=64 * 64)


@pytest.mark.parametrize("devices", [1, 4])
def test_an_evaluation_counts_each_pair_once_and_right_only_if_both_are(config, pairs, devices):
    program = assemble(config, pairs, devices=devices)
    model = program.model()
    tested = pairs.limited(test=300).test  # one more batch, which is not full
    evaluation = evaluate_split(
        program.evaluation_step, program.state, tested, data_mesh(256, devices)
    )
    batch = tested.gather(np.arange(300))
    lengths = np.asarray(model(batch.images.astype(np.float32) / 255).lengths)
    two = np.argsort(-lengths, axis=1)[:, :2]
    right = [set(a) == set(b) for a, b in zip(two.tolist(), batch.labels.tolist(), strict=True)]
    assert 0 < sum(right) < 300
    assert evaluation.metrics["accuracy"] == np.mean(right)
    np.testing.assert_array_equal(evaluation.labels, batch.labels)
    np.testing.assert_array_equal(np.sort(evaluation.predictions), np.sort(two))
    np.testing.assert_array_equal(evaluation.wrong, np.flatnonzero(~np.asarray(right)))


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
        model=model,
        model_options=options,
        routing="em" if model == "matrix_capsnet" else "dynamic",
        loss="cross_entropy",
    )
    program, metrics = train(small, pairs, devices=1)
    assert np.isfinite(metrics["loss"])
    assert "reconstruction_loss" not in metrics
    assert program.evaluate().predictions.shape == (10, 2)


def test_a_loss_of_one_class_is_refused(config, pairs):
    with pytest.raises(UserError, match="the spread loss is of one"):
        assemble(config.changed(loss="spread"), pairs, devices=1)


def test_the_first_number_that_is_not_finite_is_found(config, pairs):
    program = assemble(config, pairs, devices=1)
    assert first_not_finite(program, 0, np.arange(8)) is None
    with jax.debug_nans(False):
        program.state = program.state._replace(
            params=jax.tree.map(lambda x: x * np.inf, program.state.params)
        )
        assert first_not_finite(program, 0, np.arange(8)).startswith("parameter")


def test_a_run_that_diverges_names_its_pairs(config, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "load_dataset", lambda name, *, data_dir: pairs)
    hot = config.changed(learning_rate=1e38, max_skipped=0, steps=20)
    with jax.debug_nans(False), pytest.raises(DivergedError, match="with the training examples"):
        fit(hot, out=tmp_path / "run", devices=1)
    told = json.loads((tmp_path / "run" / "bad-numbers.json").read_text())
    assert len(told["training_examples"]) == 8


def test_compare_tells_that_it_measures_one_class(pairs, monkeypatch):
    monkeypatch.setattr(compare_command, "load_dataset", lambda name, *, data_dir: pairs)
    with pytest.raises(UserError, match="images of multi_mnist are of 2 classes each"):
        compare_command._load("multi_mnist", None)
