"""Several networks as one: the mean of how present each of them finds a class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from train.data import as_file_name
from train.learn.objective import is_right, predict
from train.report.evaluate import load_model, test_split
from train.report.predict import lengths_of
from train.run.checkpoints import Which
from train.run.folder import Run, load_run
from train.system.errors import UserError
from train.system.files import write_json, writing


def evaluate_together(
    folders: Sequence[Path],
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    which: Which = "last",
) -> dict[str, Any]:
    """Measures the networks of several runs as one, and leaves the result in the first's folder.

    The class is the one whose length is the longest in the mean over the networks. Each sees the
    images as it was trained to.

    Args:
        folders: the runs, of the same classes and images.
        dataset: name of another data set than the first run's.
        data_dir: a folder with the data set's official files.
        which: the newest checkpoint of each, or the one with its highest test accuracy.

    Returns:
        The names of what was measured, the `accuracy` of all together, and the `accuracies` of
        each, in the order of `runs`.

    Raises:
        UserError: on bad input.

    Reference:
        S. Sabour, N. Frosst, G. E. Hinton, "Dynamic Routing Between Capsules", 2017,
        arXiv:1710.09829, section 7 (seven networks on CIFAR-10).
    """
    runs = [load_run(folder) for folder in folders]
    first = runs[0]
    for run in runs[1:]:
        _require_same_classes(first, run)
    name = dataset or first.config.data.dataset
    count = first.config.data.test_examples if dataset is None else None
    test = test_split(first, name, data_dir, count)
    images, labels, _ = test.gather(np.arange(len(test)))
    of_each = [lengths_of(load_model(run, which), run.config, images) for run in runs]

    def accuracy(lengths: np.ndarray) -> float:
        classes = jnp.asarray(labels)
        return float(jnp.mean(is_right(predict(jnp.asarray(lengths), classes), classes)))

    result = {
        "runs": [str(run.folder) for run in runs],
        "dataset": name,
        "split": "test",
        "checkpoint": which,
        "examples": len(test),
        "accuracy": accuracy(np.mean(of_each, axis=0)),
        "accuracies": [accuracy(lengths) for lengths in of_each],
    }
    with writing(first.folder):
        first.evaluations.mkdir(exist_ok=True)
        file = f"{as_file_name(name)}-{which}-{len(runs)}-networks.json"
        write_json(first.evaluations / file, result)
    return result


def _require_same_classes(first: Run, other: Run) -> None:
    for what in ("image_shape", "class_names"):
        ours, theirs = getattr(first, what), getattr(other, what)
        if ours != theirs:
            raise UserError(
                f"{other.folder} has {what.replace('_', ' ')} {theirs}, but {first.folder} has "
                f"{ours}: only runs that agree in it can be measured together."
            )
