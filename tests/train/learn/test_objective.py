import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.utils.class_weight import compute_class_weight

from capsjax import CapsNetOutput, Capsules
from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.data import Batch
from train.learn.network import build_model
from train.learn.objective import (
    Objective,
    class_lengths,
    coupling_entropy,
    dead_share,
    is_right,
    log_odds,
    measure,
    predict,
)
from train.system.errors import UserError

LENGTHS = np.array([[0.95, 0.2, 0.05], [0.3, 0.6, 0.1]], np.float32)
LABELS = np.array([0, 0])
IMAGES = np.array([0.0, 0.25, 0.5, 1.0] * 2, np.float32).reshape(2, 2, 2, 1)
RECONSTRUCTION = np.full((2, 2, 2, 1), 0.5, np.float32)


@pytest.fixture
def output() -> CapsNetOutput:
    lengths = jnp.asarray(LENGTHS)
    return CapsNetOutput(
        Capsules(lengths[..., None], lengths), lengths, lengths, jnp.asarray(RECONSTRUCTION)
    )


def objective_of(**settings) -> Objective:
    return Objective.of(FitConfig.of(**settings))


def losses(objective: Objective, output: CapsNetOutput) -> dict[str, jax.Array]:
    return objective.losses(output, jnp.asarray(IMAGES), jnp.asarray(LABELS))


def test_the_paper_s_loss_worked_by_hand(output):
    computed = losses(Objective(), output)
    # First image: only class 1 is longer than 0.1. Second: class 0 lacks 0.6, class 1 has 0.5 more.
    margin = np.array([0.5 * 0.1**2, 0.6**2 + 0.5 * 0.5**2])
    squares = np.array([0.25 + 0.0625 + 0.25] * 2)
    assert_close(computed["margin_loss"], margin, dtype="float32", reduction_length=3)
    assert_close(computed["reconstruction_loss"], squares, dtype="float32", reduction_length=4)
    assert_close(computed["loss"], margin + 0.0005 * squares, dtype="float32", reduction_length=4)


def test_without_a_decoder_the_margin_is_all(output):
    computed = losses(Objective(), output._replace(reconstruction=None))
    assert set(computed) == {"loss", "margin_loss"}
    assert_close(computed["loss"], computed["margin_loss"])


def test_options_of_the_dialects(output):
    plain = losses(Objective(), output)
    weighted = losses(objective_of(margin_weight=0.1, reconstruction_weight=2.0), output)
    expected = 0.1 * plain["margin_loss"] + 2.0 * plain["reconstruction_loss"]
    assert_close(weighted["loss"], expected)

    unsquared = losses(objective_of(margin_power=1), output)["margin_loss"]
    assert_close(unsquared, np.array([0.05, 0.6 + 0.25]), dtype="float32", reduction_length=3)

    shares = np.exp(LENGTHS) / np.exp(LENGTHS).sum(axis=1, keepdims=True)
    present = np.maximum(0.9 - shares[:, 0], 0) ** 2
    absent = 0.5 * (np.maximum(shares[:, 1:] - 0.1, 0) ** 2).sum(axis=1)
    softmax = losses(objective_of(margin_of="softmax"), output)["margin_loss"]
    assert_close(softmax, present + absent, dtype="float32", reduction_length=3)


def test_pixels_are_brought_to_the_unit_range_and_normalised():
    pixels = jnp.array([0, 51, 255], jnp.uint8)
    assert_close(Objective().normalise(pixels, jnp.float32), np.array([0, 0.2, 1], np.float32))
    normalised = objective_of(input_mean=0.5, input_std=0.25).normalise(pixels, jnp.float32)
    assert_close(normalised, np.array([-2, -1.2, 2], np.float32))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask", ["label", "longest"])
def test_the_mask_decides_whether_the_model_sees_the_label(training, mask):
    model = Recorder()
    masks = {"mask_in_training": "longest", "mask_in_test": "longest"}
    objective = objective_of(**{**masks, "mask_in_training" if training else "mask_in_test": mask})
    objective.apply(model, IMAGES, LABELS, training=training)
    assert (model.seen[0][0] is not None) == (mask == "label")


def test_accuracy_counts_the_longest_capsule(output):
    measured = measure(output, losses(Objective(), output), jnp.asarray(LABELS))
    assert (float(measured["accuracy"].total), int(measured["accuracy"].examples)) == (1.0, 2)


def test_the_entropy_is_that_of_what_a_capsule_sends_where():
    c = jnp.asarray([[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]]])  # [2, I, J]
    lengths = jnp.ones((2, 2))
    output = CapsNetOutput(Capsules(lengths[..., None], lengths), lengths, c, None)
    first = np.log(2) / 2
    second = (0.25 * np.log(4) + 0.75 * np.log(4 / 3) + np.log(2)) / 2
    entropy = coupling_entropy(output)
    assert_close(entropy.total, np.float32(first + second), reduction_length=4)
    assert entropy.examples == 2
    assert_close(coupling_entropy(output, jnp.asarray([0, 1])).total, np.float32(second))


def test_a_class_capsule_is_dead_if_it_is_short_in_the_images_of_a_batch():
    lengths = jnp.asarray([[0.001, 0.9, 0.001], [0.002, 0.001, 0.001]])
    output = CapsNetOutput(Capsules(lengths[..., None], lengths), lengths, lengths, None)
    dead = dead_share(class_lengths(output))
    assert_close(dead.total / dead.examples, np.float32(2 / 3))


def test_the_spread_loss_takes_its_margin_from_the_step(output):
    objective = objective_of(loss="spread", spread_steps=100)
    for step, margin in ((0, 0.2), (50, 0.55), (100, 0.9), (1000, 0.9), (None, 0.9)):
        at = None if step is None else jnp.asarray(step)
        found = objective.losses(output, jnp.asarray(IMAGES), jnp.asarray(LABELS), at)
        lengths = np.asarray(output.lengths, np.float64)
        expected = [
            sum(
                max(0, margin - (row[label] - a)) ** 2
                for other, a in enumerate(row)
                if other != label
            )
            for row, label in zip(lengths, LABELS, strict=True)
        ]
        assert_close(found["spread_loss"], expected, dtype="float32", reduction_length=3)


def test_cross_entropy_is_of_logits_or_of_shares_of_presence(output):
    objective = objective_of(loss="cross_entropy", reconstruction_weight=0.0)
    lengths = np.asarray(output.lengths, np.float64)
    shares = lengths / lengths.sum(axis=1, keepdims=True)
    rows = np.arange(len(LABELS))
    found = losses(objective, output)
    assert_close(found["cross_entropy"], -np.log(shares[rows, LABELS]), dtype="float32")
    assert_close(found["loss"], found["cross_entropy"])
    logits = jnp.asarray([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
    found = losses(objective, output._replace(logits=logits))
    e = np.exp(np.asarray(logits, np.float64))
    expected = -np.log((e / e.sum(axis=1, keepdims=True))[rows, LABELS])
    assert_close(found["cross_entropy"], expected, dtype="float32", reduction_length=3)


class Recorder(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
        self.seen = nnx.static([])

    def __call__(self, images, labels, keys=None):
        self.seen.append((labels, keys, self.norm.use_running_average))


@pytest.mark.parametrize("training", [True, False])
def test_a_model_draws_and_normalises_by_the_batch_in_training_alone(training):
    model = Recorder()
    keys = jax.random.split(jax.random.key(0), len(LABELS))
    Objective().apply(model, IMAGES, LABELS, training=training, keys=keys)
    ((_, given, uses_average),) = model.seen
    assert (given is not None) == training
    assert uses_average == (not training)


def test_each_image_is_standardised_by_itself_over_all_channels():
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 2), dtype=np.uint8)
    images[1] //= 10
    images[2] = 77
    seen = objective_of(standardise=True).normalise(jnp.asarray(images), jnp.float32)
    exact = images[:2].astype(np.float64).reshape(2, -1)
    exact = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    assert_close(seen[:2], exact.reshape(2, 5, 4, 2), dtype="float32", reduction_length=40)
    assert np.abs(seen[2]).max() < 1e-3  # of one grey: the rounding of its mean


def test_test_images_are_scaled_as_a_whole_and_cropped_in_the_middle():
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 1), dtype=np.uint8)
    whole = objective_of(standardise=True).normalise(jnp.asarray(images), jnp.float32)
    middle = objective_of(standardise=True, crop=4).normalise(jnp.asarray(images), jnp.float32)
    np.testing.assert_array_equal(middle, whole[:, 1:5, 2:6])


def test_training_images_are_scaled_cropped_and_lit_at_random():
    images = jnp.arange(2 * 6 * 5, dtype=jnp.uint8).reshape(2, 6, 5, 1)
    batch = Batch(images, jnp.arange(2))
    key, positions = jax.random.key(0), jnp.arange(2)
    plain = Objective().augment(key, batch, positions, jnp.float32)
    np.testing.assert_array_equal(plain.images, Objective().normalise(images, jnp.float32))

    varied = objective_of(crop=3, max_brightness=0.5, max_contrast=0.5)
    seen = np.asarray(varied.augment(key, batch, positions, jnp.float32).images)
    assert seen.shape == (2, 3, 3, 1)
    # The images rise by 1 to the right and by 5 downwards, whatever is cut out of them.
    steps = seen[:, 1, 0] - seen[:, 0, 0], seen[:, 0, 1] - seen[:, 0, 0]
    assert_close(steps[0], 5 * steps[1], dtype="float32", reduction_length=9)
    other = varied.augment(jax.random.key(1), batch, positions, jnp.float32)
    assert (np.asarray(other.images) != seen).any()


def test_what_is_seen_is_shown_as_pixels():
    images = jnp.asarray([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
    for objective in (Objective(), objective_of(input_mean=0.3, input_std=2.0)):
        shown = objective.pixels(objective.normalise(images, jnp.float32))
        assert_close(shown.ravel(), np.array([0, 0.2, 1]), dtype="float32")
    shown = objective_of(standardise=True).pixels(jnp.asarray([-3.0, -2.0, 0.0, 1.0, 5.0]))
    np.testing.assert_array_equal(shown, [0, 0, 0.5, 0.75, 1])


# --- Images of two classes

SEVERAL = np.array([[0, 1], [2, 0]])


def test_losses_of_two_classes_worked_by_hand(output):
    parts = np.stack([IMAGES, np.zeros_like(IMAGES)], axis=1)
    reconstruction = jnp.full((2, 2, 2, 2, 1), 0.5)
    output = output._replace(reconstruction=reconstruction)
    computed = Objective().losses(output, jnp.asarray(parts), jnp.asarray(SEVERAL))
    # First image: class 1 lacks 0.7. Second: class 2 lacks 0.8, class 0 lacks 0.6, 1 has 0.5 more.
    margin = np.array([0.7**2, 0.8**2 + 0.6**2 + 0.5 * 0.5**2])
    squares = np.array([0.25 + 0.0625 + 0.25 + 4 * 0.25] * 2)  # of both parts
    assert_close(computed["margin_loss"], margin, dtype="float32", reduction_length=3)
    assert_close(computed["reconstruction_loss"], squares, dtype="float32", reduction_length=8)
    cross = objective_of(loss="cross_entropy").losses(
        output, jnp.asarray(parts), jnp.asarray(SEVERAL)
    )
    shares = LENGTHS.astype(np.float64) / LENGTHS.sum(axis=1, keepdims=True)
    expected = [-np.log(row[labels]).sum() for row, labels in zip(shares, SEVERAL, strict=True)]
    assert_close(cross["cross_entropy"], expected, dtype="float32", reduction_length=3)


@pytest.mark.parametrize(
    ("labels", "right"),
    [([0, 1], 1), ([1, 0], 1), ([0, 2], 0), ([2, 1], 0)],
)
def test_an_image_is_right_only_if_both_classes_are(labels, right):
    lengths = jnp.asarray([[0.95, 0.2, 0.05]])
    output = CapsNetOutput(Capsules(lengths[..., None], lengths), lengths, lengths, None)
    measured = measure(output, {}, jnp.asarray([labels]))["accuracy"]
    assert (float(measured.total), int(measured.examples)) == (right, 1)


def test_as_many_classes_are_predicted_as_there_are_labels():
    lengths = jnp.asarray([[0.1, 0.9, 0.5], [0.8, 0.1, 0.2]])
    assert predict(lengths, jnp.zeros(2, int)).tolist() == [1, 0]
    several = predict(lengths, jnp.zeros((2, 2), int))
    assert (several.tolist(), several.dtype) == ([[1, 2], [0, 2]], jnp.int32)


def test_in_test_the_longest_capsules_are_reconstructed(config):
    model = build_model(config, (8, 8, 1), 3)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    labels = jnp.asarray(SEVERAL)

    @functools.partial(nnx.jit, static_argnames="training")
    def compare(model, *, training):
        output = Objective().apply(model, images, labels, training=training)
        shown = labels if training else predict(output.lengths, labels)
        masks = jax.nn.one_hot(shown, 3)
        alone = [model.decoder(output.capsules.pose, masks[:, which]) for which in range(2)]
        return output.reconstruction, jnp.stack(alone, axis=1)

    for training in (False, True):
        both, alone = compare(model, training=training)
        assert both.shape == (2, 2, 8, 8, 1)
        assert_close(both, alone, reduction_length=16)


def test_of_classes_that_are_present_or_not_all_have_to_be_told(output):
    present = jnp.array([[True, False, True], [False, False, False], [False, True, False]])
    lengths = jnp.array([[0.9, 0.5, 0.51], [0.2, 0.1, 0.0], [0.3, 0.6, 0.7]])
    predicted = predict(lengths, present)
    np.testing.assert_array_equal(predicted, lengths > 0.5)
    assert is_right(predicted, present).tolist() == [True, True, False]
    alone = output._replace(reconstruction=None)
    labels = jnp.asarray(LABELS)
    of_class = Objective().losses(alone, jnp.zeros(()), labels)
    of_each = Objective().losses(alone, jnp.zeros(()), jax.nn.one_hot(labels, 3) > 0)
    np.testing.assert_array_equal(of_each["loss"], of_class["loss"])


def test_what_is_not_defined_for_two_classes_is_refused():
    Objective().require_fitting(2)
    objective_of(loss="spread", mask_in_training="longest").require_fitting(1)
    with pytest.raises(UserError, match="2 classes each, but the spread loss is of one"):
        objective_of(loss="spread").require_fitting(2)
    with pytest.raises(UserError, match="leave --mask-in-training at label"):
        objective_of(mask_in_training="longest").require_fitting(2)


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0, 0, 0, 0, 0, 3, 3, 1], np.int32)
    assert Objective().weigh(labels, 5) is None
    weights = objective_of(class_weights="balanced").weigh(labels, 5)
    present = [0, 1, 3]
    expected = compute_class_weight("balanced", classes=np.array(present), y=labels)
    np.testing.assert_allclose(weights[present], expected, rtol=1e-15)
    assert np.isfinite(weights).all()


def test_each_class_by_itself_has_a_sigmoid(output):
    computed = objective_of(loss="sigmoid_cross_entropy")
    p = LENGTHS.astype(np.float64)
    is_there = np.array([[1, 1, 0], [1, 0, 1]])
    expected = -(is_there * np.log(p) + (1 - is_there) * np.log(1 - p)).sum(axis=1)
    none = output._replace(reconstruction=None)
    found = computed.losses(none, jnp.asarray(IMAGES), jnp.asarray(SEVERAL))
    assert_close(found["sigmoid_cross_entropy"], expected, dtype="float32", reduction_length=3)
    logits = jnp.asarray(np.log(p / (1 - p)), jnp.float32)
    found = computed.losses(none._replace(logits=logits), jnp.asarray(IMAGES), jnp.asarray(SEVERAL))
    assert_close(found["loss"], expected, dtype="float32", reduction_length=3)


def test_log_odds_are_finite_where_a_class_is_certain():
    assert np.isfinite(log_odds(jnp.asarray([0.0, 1.0, 0.5]))).all()
