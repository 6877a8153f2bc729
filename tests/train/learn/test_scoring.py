import numpy as np
import pytest
from flax import nnx

from tests.tolerance import assert_close
from train.learn.pmap import data_mesh, make_scoring_step, replicate
from train.learn.scoring import score
from train.learn.trainer import assemble


def lengths_of(trainer, images):
    """The lengths of the class capsules, by the network alone."""
    output = nnx.jit(lambda model, seen: model(seen))(trainer.model(), images / np.float32(255))
    return np.asarray(output.lengths)


@pytest.mark.parametrize("devices", [1, 3])  # 256 is no multiple of 3
def test_each_example_counts_once_on_any_number_of_devices(config, dataset, devices):
    trainer = assemble(config.changed(batch_size=devices), dataset, devices=devices)
    scores = trainer.score(dataset.test)
    lengths = lengths_of(trainer, dataset.test.images)
    predictions = lengths.argmax(axis=-1)
    np.testing.assert_array_equal(scores.predictions, predictions)
    assert scores.metrics["accuracy"] == np.mean(predictions == dataset.test.labels)
    present = dataset.test.labels[:, None] == np.arange(3)
    lacking, excess = np.maximum(0.9 - lengths, 0) ** 2, np.maximum(lengths - 0.1, 0) ** 2 / 2
    margins = np.where(present, lacking, excess).sum(axis=1)
    loss = np.float32(scores.metrics["margin_loss"])
    assert_close(loss, margins.mean(), dtype="float32", reduction_length=64)


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
