import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from tests.tolerance import assert_close
from train.data import Split
from train.learn.pmap import data_mesh, make_scoring_step, replicate
from train.learn.scoring import batch_size, score
from train.learn.trainer import assemble


def lengths_of(trainer, images):
    """The lengths of the class capsules, by the network alone."""
    output = nnx.jit(lambda model, seen: model(seen))(trainer.model(), images / np.float32(255))
    return np.asarray(output.lengths)


def margin_loss(lengths, labels):
    """Its mean over images of three classes."""
    lacking, excess = np.maximum(0.9 - lengths, 0) ** 2, np.maximum(lengths - 0.1, 0) ** 2 / 2
    return np.where(labels[:, None] == np.arange(3), lacking, excess).sum(axis=1).mean()


@pytest.mark.parametrize("devices", [1, 3])  # 256 is no multiple of 3
def test_each_example_counts_once_on_any_number_of_devices(config, dataset, devices):
    trainer = assemble(config.changed(batch_size=devices), dataset, devices=devices)
    scores = trainer.score(dataset.test)
    lengths = lengths_of(trainer, dataset.test.images)
    predictions = lengths.argmax(axis=-1)
    np.testing.assert_array_equal(scores.predictions, predictions)
    assert scores.metrics["accuracy"] == np.mean(predictions == dataset.test.labels)
    loss = np.float32(scores.metrics["margin_loss"])
    assert_close(loss, margin_loss(lengths, dataset.test.labels), reduction_length=64)


@pytest.mark.parametrize("devices", [1, 3])
def test_one_example_is_measured_without_company(config, dataset, devices):
    assert (batch_size(1, devices, alone=True), batch_size(16, 1, alone=True)) == (devices, 256)
    trainer = assemble(config.changed(batch_size=devices), dataset, devices=devices)
    tested = dataset.limited(test=1).test
    scores = trainer.score(tested)
    lengths = lengths_of(trainer, tested.images)
    np.testing.assert_array_equal(scores.predictions, lengths.argmax(axis=-1))
    loss = np.float32(scores.metrics["margin_loss"])
    assert_close(loss, margin_loss(lengths, tested.labels), reduction_length=64)


@pytest.mark.parametrize("devices", [1, 4])
def test_each_pair_counts_once_and_is_right_only_if_both_are(config, pairs, devices):
    config = config.changed(dataset="multi_mnist", train_examples=40)
    trainer = assemble(config, pairs, devices=devices)
    tested = pairs.limited(test=300).test  # one more batch, which is not full
    scores = score(trainer.scoring_step, trainer.state, tested, data_mesh(256, devices))
    batch = tested.gather(np.arange(300))
    lengths = lengths_of(trainer, batch.images)
    two = np.argsort(-lengths, axis=1)[:, :2]
    right = [set(a) == set(b) for a, b in zip(two.tolist(), batch.labels.tolist(), strict=True)]
    assert 0 < sum(right) < 300
    assert scores.metrics["accuracy"] == np.mean(right)
    np.testing.assert_array_equal(scores.labels, batch.labels)
    np.testing.assert_array_equal(np.sort(scores.predictions), np.sort(two))
    np.testing.assert_array_equal(scores.wrong, np.flatnonzero(~np.asarray(right)))


@pytest.mark.parametrize(("count", "sizes"), [(300, (150, 150)), (293, (256, 37))])
def test_nothing_is_put_beside_examples_that_share_their_logits(config, dataset, count, sizes):
    """300 is divided by 150; 293 is a prime."""
    config = config.changed(routing_options={"shared_logits": True})
    trainer = assemble(config, dataset, devices=1)
    # Longer capsules, whose routing shows who is in the batch.
    params = jax.tree.map(lambda array: 4 * array, trainer.state.params)
    trainer.state = trainer.state._replace(params=params)
    chosen = np.arange(count) % len(dataset.test)
    tested = Split(dataset.test.images[chosen], dataset.test.labels[chosen])
    scores = score(trainer.scoring_step, trainer.state, tested, trainer.mesh, alone=False)
    starts = np.cumsum((0, *sizes))
    lengths = np.concatenate(
        [lengths_of(trainer, tested.images[a:b]) for a, b in itertools.pairwise(starts)]
    )
    loss = margin_loss(lengths, tested.labels)
    assert_close(np.float32(scores.metrics["margin_loss"]), loss, reduction_length=64)
    np.testing.assert_array_equal(scores.predictions, lengths.argmax(axis=-1))
    assert scores.metrics["accuracy"] == np.mean(scores.predictions == tested.labels)


def test_means_over_classes_and_the_first_two_are_the_same_on_any_devices(config, dataset):
    measured = []
    for devices in (1, 2, 4):
        mesh = data_mesh(256, devices)
        trainer = assemble(config, dataset, devices=devices)
        step = make_scoring_step(nnx.graphdef(trainer.model()), config, mesh, top=2)
        measured.append(score(step, replicate(trainer.state, mesh), dataset.test, mesh))
    lengths = lengths_of(trainer, dataset.test.images)
    first = np.argsort(-lengths, axis=1, kind="stable")
    labels = dataset.test.labels
    for scores in measured:
        assert scores.metrics["top_2_accuracy"] == np.mean(
            [label in row for label, row in zip(labels, first[:, :2], strict=True)]
        )
        recalls = [np.mean(first[labels == label, 0] == label) for label in np.unique(labels)]
        assert scores.metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert "top_5_accuracy" not in trainer.score(dataset.test).metrics  # there are three classes
