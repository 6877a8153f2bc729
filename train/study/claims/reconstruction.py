"""Section 5.1 of CapsNet's paper: the dimensions of a capsule stand for properties."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import special_ortho_group

from train.learn.objective import Objective
from train.presets import get_preset
from train.report.loading import load_model
from train.run.folder import load_run
from train.study.trial.baselines import reduced
from train.study.trial.definition import Arm, Budget, Claim, Quantity

ERROR = "reconstruction error, % of the variance"
NAMED = "dimensions that go with thickness, height, width or slant"
TURNED = "the same of poses turned at random"
TURNS = 20
"""Random rotations of the poses, whose mean count the dimensions themselves have to beat."""
EXAMPLES = 2000
"""Test images that are measured, the first of each class in its share."""
CLEAR = 0.5
"""A correlation from which a dimension is said to go with a property."""


def arms(budget: Budget) -> Sequence[Arm]:
    """CapsNet alone: there is nothing to compare it with."""
    base = get_preset("mnist") if budget == "paper" else reduced()
    if budget == "small":
        base = base.changed(train_examples=20_000, epochs=4)
    elif budget == "medium":
        base = base.changed(epochs=20)
    return [Arm("CapsNet", base)]


def properties(images: np.ndarray) -> np.ndarray:
    """Measures the ink of digits `[n, height, width, channels]`, from 0 to 1, light on dark.

    That is, float64 `[n, 4]`: the ink for the extent of the digit, which grows with the thickness
    of its strokes; the deviations of the ink's rows and columns; and its slant, the covariance of
    both for the variance of the rows. An image without ink has zeros.
    """
    ink = images.astype(np.float64).mean(axis=-1)
    rows, columns = np.mgrid[: ink.shape[1], : ink.shape[2]]
    total = np.maximum(ink.sum(axis=(1, 2)), np.finfo(np.float64).tiny)

    def mean(values: np.ndarray) -> np.ndarray:
        return (ink * values).sum(axis=(1, 2)) / total

    y, x = (rows - mean(rows)[:, None, None], columns - mean(columns)[:, None, None])
    height, width, both = mean(y**2), mean(x**2), mean(x * y)
    extent = np.sqrt(height * width)
    return np.stack(
        [_ratio(total, extent), np.sqrt(height), np.sqrt(width), _ratio(both, height)], axis=1
    )


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def named_dimensions(poses: np.ndarray, measured: np.ndarray, labels: np.ndarray) -> int:
    """Counts the dimensions of a pose that go with a property, in the mean over the classes.

    The poses `[n, D]` are of the capsules of the images' labels `[n]`, the properties `[n, P]`.
    """
    strongest = []
    for label in np.unique(labels):
        of_class = labels == label
        both = np.corrcoef(poses[of_class].T, measured[of_class].T)
        correlations = np.abs(np.nan_to_num(both[: poses.shape[1], poses.shape[1] :]))
        strongest.append(correlations.max(axis=1))
    return int(np.sum(np.mean(strongest, axis=0) > CLEAR))


@functools.lru_cache(maxsize=1)
def _output(folder: Path, data_dir: Path | None) -> tuple[Any, np.ndarray, np.ndarray]:
    """The output of a run's network for some test images; these images; their labels."""
    run = load_run(folder)
    test = run.config.data.load(data_dir).test
    images, labels, _ = test.some(EXAMPLES)
    objective, model = Objective.of(run.config), load_model(run, "last")
    normalised = objective.normalise(jnp.asarray(images), jnp.dtype(run.config.model.param_dtype))
    output = objective.apply(model, normalised, jnp.asarray(labels), training=False)
    return jax.device_get(output), np.asarray(normalised), labels


def _error(folder: Path, data_dir: Path | None) -> float:
    output, images, _ = _output(folder, data_dir)
    flat = images.reshape(len(images), -1)
    squared = np.square(np.asarray(output.reconstruction).reshape(flat.shape) - flat).sum()
    return float(100 * squared / np.square(flat - flat.mean(axis=0)).sum())


def _named(folder: Path, data_dir: Path | None, *, turned: bool) -> float:
    """The count for the poses, or for coordinates that mean nothing, the mean of many rotations."""
    output, images, labels = _output(folder, data_dir)
    poses = output.capsules.pose[np.arange(len(labels)), labels]
    count, measured = poses.shape[1], properties(images)
    turns = special_ortho_group(count, seed=0).rvs(TURNS) if turned else [np.eye(count)]
    return float(np.mean([named_dimensions(poses @ turn, measured, labels) for turn in turns]))


CLAIM = Claim(
    says="The dimensions of a digit's capsule stand for ways in which digits vary: the thickness "
    "of strokes, width, slant.",
    source="Sabour, Frosst and Hinton 2017, arXiv:1710.09829, section 5.1 and Figure 4; the paper "
    "shows it by eye; the count of dimensions is ours, and means something if it is more than that "
    "of poses turned at random",
    arms=arms,
    quantities=[
        Quantity(ERROR, _error),
        Quantity(NAMED, functools.partial(_named, turned=False)),
        Quantity(TURNED, functools.partial(_named, turned=True)),
    ],
    contrasts=[],
    figures=["dimensions.png", "reconstructions.png"],
)
