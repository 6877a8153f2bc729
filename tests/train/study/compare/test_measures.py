import jax
import numpy as np
from flax import nnx

from tests.tolerance import assert_close
from train.data import Split
from train.learn.network import build_model
from train.learn.optimizer import build_optimizer
from train.learn.training_state import initial_state
from train.study.compare import measures
from train.study.compare.measures import accuracy, calibration_error, negative_log_likelihood

LABELS = np.array([0, 1, 1, 0])
LENGTHS = np.array([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]])


def test_accuracy_of_each_seed():
    wrong = 1 - LENGTHS
    assert_close(accuracy(np.concatenate([LENGTHS, wrong]), LABELS), [0.75, 0.25])


def test_likelihood_is_of_the_label_and_finite_at_zero():
    expected = -np.mean(np.log([0.9, 0.8, 0.4, 0.7]))
    assert_close(negative_log_likelihood(LENGTHS, LABELS)[0], expected)
    impossible = np.array([[[0.0, 1.0]] * 4])
    assert np.isfinite(negative_log_likelihood(impossible, LABELS)).all()


def test_calibration_is_the_gap_between_confidence_and_accuracy_bin_by_bin():
    expected = (abs(0.9 - 1) + abs(0.8 - 1) + abs(0.6 - 0) + abs(0.7 - 1)) / 4
    assert_close(calibration_error(LENGTHS[0], LABELS), expected)
    # In one bin too much confidence and too little cancel.
    both = np.array([[0.5, 0.0], [0.53125, 0.0]])
    assert calibration_error(both, np.array([0, 1])) == 0.03125 / 2
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(certain, np.array([0, 1])) == 0


def test_images_that_are_changed_by_nothing_are_seen_as_they_are(config, dataset):
    model = build_model(config, dataset.image_shape, dataset.num_classes)
    _, state = initial_state(model, build_optimizer(config), config)
    of_one_seed = jax.tree.map(lambda array: array[None], state)
    predict = measures._predictor(config, of_one_seed, dataset)
    unchanged, _ = predict(dataset.test, None, 0.0)
    for kind, way in measures.PERTURBATIONS.items():
        changed, _ = predict(dataset.test, kind, way.none)
        assert_close(changed, unchanged, dtype="float32", reduction_length=64)
        strongest, _ = predict(dataset.test, kind, way.strengths[-1])
        assert np.any(strongest != changed)


def test_nothing_is_put_beside_images_that_share_their_logits(config, dataset):
    """293 is a prime, so the last of its batches is smaller."""
    config = config.changed(routing_options={"shared_logits": True})
    model = build_model(config, dataset.image_shape, dataset.num_classes)
    _, state = initial_state(model, build_optimizer(config), config)
    # Longer capsules, whose routing shows who is in the batch.
    state = state._replace(params=jax.tree.map(lambda array: 4 * array, state.params))
    predict = measures._predictor(config, jax.tree.map(lambda a: a[None], state), dataset)
    indices = np.arange(293) % len(dataset.test)
    chosen = Split(dataset.test.images[indices], dataset.test.labels[indices])
    lengths, _ = predict(chosen, None, 0.0)
    nnx.update(model, state.params)
    images = np.asarray(chosen.images, np.float32) / 255
    expected = np.concatenate([model(images[:256]).lengths, model(images[256:]).lengths])
    assert_close(lengths[0], expected, dtype="float32", reduction_length=64)
