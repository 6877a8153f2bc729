"""Measuring the network of a run again, on its own test images or on another set's."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from train.data import Examples, as_file_name, load_dataset
from train.learn.network import build_model, in_test, require_room, structure, training_key
from train.learn.objective import Objective
from train.learn.optimizer import build_optimizer
from train.learn.own_routing import takes_iterations
from train.learn.scoring import BATCH, Evaluation, evaluate_split
from train.learn.step import data_mesh, make_evaluation_step, replicate
from train.learn.update import AXIS, TrainState, initial_state
from train.run.checkpoints import Checkpoints, Which
from train.run.folder import Run, load_run
from train.system.errors import UserError
from train.system.files import finite_or_none, write_json, writing


def evaluate(
    folder: Path,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    which: Which = "last",
    devices: int | None = None,
    routing_iterations: int | None = None,
    inspect: bool = False,
    test_examples: int | None = None,
) -> dict[str, Any]:
    """Measures a run's network on a test split, and leaves the result in the run's folder.

    Args:
        folder: the run.
        dataset: name of another data set with images of the same shape and as many classes.
        data_dir: a folder with the data set's official files.
        which: the newest checkpoint, or the one with the highest test accuracy.
        devices: how many local devices to use, all by default.
        routing_iterations: how often to route, instead of as often as in training.
        inspect: look into the routing, too, and draw what is there into the run's `figures`.
        test_examples: how many test images to take, the first; by default as many as the run did,
            and of another data set see `Dataset.limited`.

    Returns:
        The names of what was measured, and the means of each loss term and the accuracy; and, if
        `inspect`, what `train.report.inspect` found.

    Raises:
        UserError: on bad input.
    """
    run = load_run(folder)
    if routing_iterations is not None:
        run = _with_iterations(run, routing_iterations)
    name = dataset or run.config.data.dataset
    if test_examples is None and dataset is None:
        test_examples = run.config.data.test_examples
    test = test_split(run, name, data_dir, test_examples)
    graphdef, state = load_state(run, which, devices=devices)
    evaluation = _evaluate(run, graphdef, state, test, devices)
    result: dict[str, Any] = {
        "dataset": name,
        "split": "test",
        "checkpoint": which,
        "step": int(state.step),
        "examples": len(test),
        **{key: finite_or_none(value) for key, value in evaluation.metrics.items()},
    }
    suffix = ""
    if routing_iterations is not None:
        result["routing_iterations"] = routing_iterations
        suffix = f"-{routing_iterations}-iterations"
    if test_examples is not None:
        suffix += f"-{test_examples}-examples"
    with writing(folder):
        if inspect:
            result["inspection"] = _inspect(run, state, test, evaluation)
        run.evaluations.mkdir(exist_ok=True)
        write_json(run.evaluations / f"{as_file_name(name)}-{which}{suffix}.json", result)
    return result


def _with_iterations(run: Run, iterations: int) -> Run:
    """The run with another number of routing iterations, with which its parameters still fit."""
    config = run.config
    has_routing = "routing" in capsjax.model_options(config.model.name)
    if not has_routing or not takes_iterations(config.model.routing):
        what = config.model.routing if has_routing else config.model.name
        raise UserError(f"{what} has no routing iterations: leave --routing-iterations out.")
    config = config.changed(routing_iterations=iterations)
    return dataclasses.replace(run, config=config)


def _inspect(run: Run, state: TrainState, test: Examples, evaluation: Evaluation) -> dict[str, Any]:
    from train.report.inspect import inspect  # figures take a second to import

    graphdef = structure(run.config, run.image_shape, run.num_classes)
    model = in_test(nnx.merge(graphdef, state.weights, state.model_state))
    title = f"{run.config.preset}, {run.config.model.routing}, {evaluation.metrics['accuracy']:.2%}"
    objective = Objective.of(run.config)
    return inspect(model, objective, test, run.class_names, run.figures, title)


def load_state(
    run: Run, which: Which, *, devices: int | None = None
) -> tuple[nnx.GraphDef, TrainState]:
    """Loads a checkpoint of a run: the network's structure and its training state.

    Raises:
        UserError: if there is no checkpoint that can be read.
    """
    require_room(run.config, run.image_shape, run.num_classes)
    with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
        model = build_model(run.config, run.image_shape, run.num_classes, axis=AXIS)
        graphdef, state = initial_state(
            model,
            build_optimizer(run.config),
            training_key(run.config),
            averaged=run.config.optimizer.ema_decay is not None,
        )
        return graphdef, checkpoints.load(replicate(state, _mesh(devices)), which)


def load_model(run: Run, which: Which) -> nnx.Module:
    """Loads the network of a run, on one device.

    Raises:
        UserError: if there is no checkpoint that can be read.
    """
    _, state = load_state(run, which, devices=1)
    graphdef = structure(run.config, run.image_shape, run.num_classes)
    return in_test(nnx.merge(graphdef, state.weights, state.model_state))


def _mesh(devices: int | None) -> jax.sharding.Mesh:
    count = len(jax.local_devices()) if devices is None else devices
    return data_mesh(-(-BATCH // max(count, 1)) * count, devices)


def test_split(run: Run, name: str, data_dir: Path | None, count: int | None) -> Examples:
    """The test split of a data set that a run's network can be measured on.

    Args:
        run: the run.
        name: of the data set.
        data_dir: a folder with the data set's official files.
        count: how many of its examples, the first; all if not given.

    Raises:
        UserError: if there is no such set, it cannot be had, or its images or classes do not fit.
    """
    dataset = load_dataset(name, data_dir=data_dir)
    if dataset.image_shape != run.image_shape or dataset.num_classes != run.num_classes:
        raise UserError(
            f"{name} has images of {dataset.image_shape} in {dataset.num_classes} classes, but the "
            f"network in {run.folder} takes {run.image_shape} in {run.num_classes} classes."
        )
    return dataset.limited(test=count).test


def _evaluate(
    run: Run, graphdef: nnx.GraphDef, state: TrainState, test: Examples, devices: int | None
) -> Evaluation:
    mesh = _mesh(devices)
    step = make_evaluation_step(
        graphdef,
        Objective.of(run.config),
        image_dtype=jnp.dtype(run.config.model.param_dtype),
        mesh=mesh,
    )
    return evaluate_split(step, state, test, mesh)
