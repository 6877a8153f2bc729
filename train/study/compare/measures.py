"""Measures of trained networks: on the test images, and on changed ones."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train.config.fit_config import FitConfig
from train.data import Dataset, Examples
from train.learn.network import structure
from train.learn.objective import Objective, log_probabilities
from train.learn.scoring import scoring_batches
from train.learn.training_state import TrainState
from train.study.compare.perturb import PERTURBATIONS, perturb
from train.study.statistics import pack, unpack
from train.system.errors import DivergedError

BINS = 15
"""Of the calibration error: confidences in as many classes of equal width."""

Predict = Callable[[Examples, str | None, float], tuple[np.ndarray, np.ndarray]]


def measure(
    config: FitConfig, states: TrainState, dataset: Dataset, examples: int
) -> dict[str, Any]:
    """Measures all networks of a cell on the test images of a data set.

    The arrays of the states have a leading axis of seeds. So many examples, of each class
    its share, are changed to see how robust the networks are.

    Returns:
        `accuracy`, `nll` and `calibration_error`, a value a seed; `right`, which images each seed
        recognises, as of `statistics.pack`; `from_logits`, whether `nll` is of a softmax that the
        network was trained with, or of lengths as shares of their sum; and `robustness`, by the
        kind of change the accuracies of every seed, `[strengths, seeds]`, those of no change first.

    Raises:
        DivergedError: what a network says is not finite.
    """
    test = dataset.test
    labels = test.some(len(test)).labels
    predict = _predictor(config, states, dataset)
    lengths, probabilities = predict(test, None, 0.0)
    few = test.subset(min(examples, len(test)))
    of_few = few.some(len(few)).labels

    def changed(kind: str | None, strength: float) -> list[float]:
        return accuracy(predict(few, kind, strength)[0], of_few).tolist()

    unchanged = changed(None, 0.0)
    robustness = {
        kind: [unchanged, *(changed(kind, strength) for strength in way.strengths)]
        for kind, way in PERTURBATIONS.items()
    }
    return {
        "accuracy": accuracy(lengths, labels).tolist(),
        "right": [pack(of_seed) for of_seed in np.argmax(lengths, axis=-1) == labels],
        "from_logits": config.objective.loss == "cross_entropy",
        "nll": negative_log_likelihood(probabilities, labels).tolist(),
        "calibration_error": [calibration_error(of_seed, labels) for of_seed in lengths],
        "robustness": robustness,
    }


def over_folds(parts: Sequence[dict[str, Any]], images: Sequence[int]) -> dict[str, Any]:
    """What `measure` found of all folds of a cross-validation, of so many images each, together."""
    if len(parts) == 1:
        return parts[0]

    def mean(values: Sequence[Any]) -> Any:
        return np.average(np.array(values), axis=0, weights=images).tolist()

    names = ("accuracy", "nll", "calibration_error")
    right = [
        [unpack(packed, count) for packed in part["right"]]
        for part, count in zip(parts, images, strict=True)
    ]
    robustness = [part["robustness"] for part in parts]
    return {
        **parts[0],
        **{name: mean([part[name] for part in parts]) for name in names},
        "right": [pack(np.concatenate(of_seed)) for of_seed in zip(*right, strict=True)],
        "robustness": {kind: mean([of[kind] for of in robustness]) for kind in robustness[0]},
    }


def accuracy(lengths: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of right predictions, of the presence of classes `[seeds, n, classes]`."""
    return np.mean(np.argmax(lengths, axis=-1) == labels, axis=-1)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean of `-log p(label)` in nats, of probabilities `[seeds, n, classes]`: `[seeds]`."""
    of_label = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
    return np.mean(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)), axis=-1)


def calibration_error(lengths: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error, from 0 to 1, of the presence of classes `[n, classes]`.

    Predictions are sorted into `BINS` by how present the predicted class is, taken as the
    probability to be right; it is the mean distance of accuracy and mean probability in a bin,
    weighted by their number (Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599, equation 3).
    """
    confidence = lengths.max(axis=-1)
    right = lengths.argmax(axis=-1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, right - confidence.astype(np.float64), minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _predictor(config: FitConfig, states: TrainState, dataset: Dataset) -> Predict:
    """`(images, kind, strength)` -> lengths and probabilities `[seeds, n, classes]`."""
    graphdef = structure(config, dataset.image_shape, dataset.num_classes)
    objective, dtype = Objective.of(config), jnp.dtype(config.model.param_dtype)

    # Apart from the networks, which are compiled once for all kinds of change.
    @functools.partial(jax.jit, static_argnames="kind")
    def seen(images: jax.Array, kind: str | None, strength: jax.Array) -> jax.Array:
        if kind is not None:
            images = perturb(kind, strength, images.astype(dtype) / 255)
        return objective.normalise(images, dtype)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def of_seeds(weights: Any, model_state: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, weights, model_state)
        nothing = jnp.zeros(len(images), jnp.int32)
        output = objective.apply(model, images, nothing, training=False)
        logits = output.logits if config.objective.loss == "cross_entropy" else None
        scores = log_probabilities(output.lengths) if logits is None else logits
        return output.lengths, jax.nn.softmax(scores)

    def predict(
        examples: Examples, kind: str | None, strength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        batches = []
        for batch, _ in scoring_batches(examples, 1, alone=not config.model.shares_logits):
            images = seen(batch.images, kind, np.asarray(strength, dtype))
            batches.append(jax.device_get(of_seeds(states.weights, states.model_state, images)))
        lengths, probabilities = (np.concatenate(of, axis=1) for of in zip(*batches, strict=True))
        if not np.isfinite(lengths).all():
            raise DivergedError(
                f"{config.model.name} has diverged: what it says of images is not finite. Try a "
                "lower --learning-rate, --warmup-steps or --clip-norm, or leave it out."
            )
        return lengths[:, : len(examples)], probabilities[:, : len(examples)]

    return predict
