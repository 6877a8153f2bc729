"""Measuring the networks of runs again, on their own test images or on another set's."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from train.data import Examples, as_file_name, npz
from train.data.dataset import digest
from train.learn.network import out_of_memory_is_bad_input, require_iterations
from train.learn.objective import TOP, predict
from train.learn.pmap import make_scoring_step
from train.learn.scoring import BATCH, Scores, batch_size, score
from train.learn.training_state import TrainState, trained_model
from train.report.loading import (
    Kind,
    evaluation_mesh,
    lengths_of,
    load_model,
    load_split,
    load_state,
)
from train.run.checkpoint_files import Which
from train.run.folder import Run, load_run
from train.system.errors import UserError
from train.system.files import finite_or_none, keeping, write_json


def evaluate(
    folder: Path,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    which: Which = "last",
    devices: int | None = None,
    routing_iterations: int | None = None,
    inspect: bool = False,
    split: Kind = "test",
    test_examples: int | None = None,
    by_index: bool = False,
    layout: npz.Layout | None = None,
    top: int | None = None,
) -> dict[str, Any]:
    """Measures a run's network on a split, and leaves the result in the run's folder.

    A folder that cannot be written is told on stderr, and the result returned all the same.

    Args:
        folder: the run.
        dataset: name of another data set with images of the same shape and as many classes.
        data_dir: a folder with the data set's official files.
        which: the newest checkpoint, or the one with the highest validation accuracy.
        devices: how many local devices to use, all by default.
        routing_iterations: how often to route, instead of as often as in training.
        inspect: return also what `train.report.inspect` finds, and draw that.
        split: the test split, or the validation examples.
        test_examples: how many test images to take, see `Examples.subset`; by default as many as
            the run did, and of another data set see `Dataset.limited`.
        by_index: take another set's classes in their order; by default by their names.
        layout: how an `npz:` file is to be understood, see `load_split`.
        top: classes among which that of an image has to be, `TOP` by default; see `measure_top`.

    Returns:
        The names of what was measured, the means of each loss term and the accuracy, what else
        `Scores.metrics` has, and as `classes` the `ClassCounts.rows`.

    Raises:
        UserError: on bad input.
    """
    run = load_run(folder)
    if top is not None and run.labels_per_image != 1:
        raise UserError(
            f"--top-k is {top}, but images of the run in {folder} are of several classes, which "
            "have no one place among the longest: leave it out."
        )
    if top is not None and not 1 <= top < run.num_classes:
        raise UserError(
            f"--top-k is {top}, but the network in {folder} has {run.num_classes} classes: choose "
            f"from 1 to {run.num_classes - 1}."
        )
    if routing_iterations is not None:
        run = _with_iterations(run, routing_iterations)
    name = dataset or run.config.data.dataset
    if split == "validation" and test_examples is not None:
        raise UserError("--test-examples says nothing of --split validation: leave it out.")
    if test_examples is None and dataset is None and split == "test":
        test_examples = run.config.data.test_examples
    examples = load_split(
        run, name, data_dir, split, test_examples, by_index=by_index, layout=layout
    )
    state, scores = score_run(run, examples, which=which, devices=devices, top=top or TOP)
    result: dict[str, Any] = {
        "dataset": name,
        "split": split,
        "checkpoint": which,
        "step": int(state.step),
        "examples": len(examples),
        **{key: finite_or_none(value) for key, value in scores.metrics.items()},
        "classes": scores.by_class(run.num_classes).rows(run.class_names),
    }
    if run.config.model.shares_logits:
        result["batch"] = batch_size(len(examples), evaluation_mesh(devices).size, alone=False)
    about = []
    if routing_iterations is not None:
        result["routing_iterations"] = routing_iterations
        about.append(f"{routing_iterations}-iterations")
    about += [] if split == "test" else [split]
    about += [] if top is None else [f"top-{top}"]
    about += _of_data(test_examples, by_index, layout)
    if inspect:
        from train.report.figures import Tested  # figures take a second to import
        from train.report.inspect import inspect as look

        model = trained_model(run.config, run.image_shape, run.num_classes, state)
        result["inspection"] = look(Tested(run, model, examples, scores))
    _keep(run, [name, which, *about], result)
    return result


def score_run(
    run: Run,
    examples: Examples,
    *,
    which: Which = "last",
    devices: int | None = None,
    top: int = TOP,
) -> tuple[TrainState, Scores]:
    """Scores the network of a run on examples, see `measure_top`; its state, and the scores.

    Raises:
        UserError: if there is no checkpoint that can be read.
    """
    graphdef, state = load_state(run, which, devices=devices)
    mesh = evaluation_mesh(devices)
    step = make_scoring_step(graphdef, run.config, mesh, top=top)
    with out_of_memory_is_bad_input(BATCH, "use more --devices, or some with more memory"):
        return state, score(step, state, examples, mesh, alone=not run.config.model.shares_logits)


def evaluate_ensemble(
    folders: Sequence[Path],
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    which: Which = "last",
    test_examples: int | None = None,
    by_index: bool = False,
    layout: npz.Layout | None = None,
) -> dict[str, Any]:
    """Measures the networks of several runs as one, and leaves the result in the first's folder.

    The class is the one whose length is the longest in the mean over the networks. Each sees the
    images as it was trained to, which are those of the first run, or as of `evaluate`.

    Returns:
        The names of what was measured, the `accuracy` of the ensemble, its means over classes and
        its `classes` as of `evaluate`, and the `accuracies` of each network, in the order of
        `runs`.

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
    if test_examples is None and dataset is None:
        test_examples = first.config.data.test_examples
    test = load_split(first, name, data_dir, count=test_examples, by_index=by_index, layout=layout)
    images, labels, _ = test.gather(np.arange(len(test)))
    of_each = [lengths_of(load_model(run, which), run.config, images) for run in runs]
    for run, lengths in zip(runs, of_each, strict=True):
        if not np.isfinite(lengths).all():
            raise UserError(
                f"the outputs of the network in {run.folder} are not finite: leave that run out, "
                "or train it anew with a lower --learning-rate."
            )

    def scores(lengths: np.ndarray) -> Scores:
        predictions = predict(jnp.asarray(lengths), jnp.asarray(labels))
        return Scores({}, np.asarray(predictions), labels)

    def accuracy(scores: Scores) -> float:
        return 1 - len(scores.wrong) / len(labels)

    together = scores(np.mean(of_each, axis=0))
    by_class = together.by_class(first.num_classes)
    result = {
        "runs": [str(run.folder) for run in runs],
        "dataset": name,
        "split": "test",
        "checkpoint": which,
        "examples": len(test),
        "accuracy": accuracy(together),
        **by_class.means,
        "accuracies": [accuracy(scores(lengths)) for lengths in of_each],
        "classes": by_class.rows(first.class_names),
    }
    which_ones = digest(*(str(run.folder.resolve()) for run in runs))[:8]
    about = [f"{len(runs)}-networks-{which_ones}", *_of_data(test_examples, by_index, layout)]
    _keep(first, [name, which, *about], result)
    return result


def _of_data(test_examples: int | None, by_index: bool, layout: npz.Layout | None) -> list[str]:
    """What was said of the images that changes a result, for the name of its file."""
    read = layout or npz.AS_WRITTEN
    said = {
        "by-index": by_index,
        f"{read.axes}": read.axes,
        f"labels-from-{read.labels}": read.labels,
        f"{test_examples}-examples": test_examples,
    }
    return [words for words, value in said.items() if value]


def _keep(run: Run, about: Sequence[str], result: dict[str, Any]) -> None:
    """Writes a result into a file of its own: another for all that makes it another."""
    with keeping(run.evaluations):
        run.evaluations.mkdir(exist_ok=True)
        write_json(run.evaluations / f"{as_file_name('-'.join(about))}.json", result)


def _with_iterations(run: Run, iterations: int) -> Run:
    """The run with another number of routing iterations, with which its parameters still fit."""
    require_iterations(run.config.model, "--routing-iterations")
    return dataclasses.replace(run, config=run.config.changed(routing_iterations=iterations))


def _require_same_classes(first: Run, other: Run) -> None:
    for name in ("image_shape", "class_names"):
        ours, theirs = getattr(first, name), getattr(other, name)
        if ours != theirs:
            raise UserError(
                f"{other.folder} has {name.replace('_', ' ')} {theirs}, but {first.folder} has "
                f"{ours}: only runs that agree in it can be measured as one."
            )
