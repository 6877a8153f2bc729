"""The network of a run, loaded from a checkpoint, and the images that it can be measured on."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax import nnx

import capsjax
from train.config.fit_config import FitConfig
from train.data import Dataset, Examples, OnDisk, hold_out, load_dataset, npz, stored
from train.learn.network import require_room
from train.learn.optimizer import build_optimizer
from train.learn.pmap import data_mesh, replicate
from train.learn.scoring import BATCH
from train.learn.step import AXIS
from train.learn.training_state import TrainState, draw_states, trained_model
from train.run.checkpoint_files import Checkpoints, Which
from train.run.folder import Run
from train.system.errors import UserError

Kind = Literal["test", "validation"]


def load_state(
    run: Run, which: Which, *, devices: int | None = None
) -> tuple[nnx.GraphDef, TrainState]:
    """Loads a checkpoint of a run: the network's structure and its training state.

    Raises:
        UserError: if there is no checkpoint that can be read.
    """
    require_room(run.config, run.image_shape, run.num_classes)
    with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
        config, shapes = run.config, (run.image_shape, run.num_classes)
        made = draw_states(config, *shapes, build_optimizer(config), axis=AXIS, seeds=[config.seed])
        graphdef, [state] = made
        return graphdef, checkpoints.load(replicate(state, evaluation_mesh(devices)), which)


def load_model(run: Run, which: Which) -> nnx.Module:
    """Loads the network of a run, on one device.

    Raises:
        UserError: if there is no checkpoint that can be read.
    """
    _, state = load_state(run, which, devices=1)
    return trained_model(run.config, run.image_shape, run.num_classes, state)


def evaluation_mesh(devices: int | None) -> jax.sharding.Mesh:
    """The devices that share an evaluation batch; all local ones if their number is not given."""
    count = len(jax.local_devices()) if devices is None else devices
    return data_mesh(-(-BATCH // max(count, 1)) * count, devices)


def load_split(
    run: Run,
    name: str,
    data_dir: Path | None,
    split: Kind = "test",
    count: int | None = None,
    *,
    by_index: bool = False,
    layout: npz.Layout | None = None,
) -> Examples:
    """The examples of a data set that a run is measured on, labelled as the run's classes are.

    They are so many of the test split, what `Dataset.limited` takes if None; or those
    that the run sets aside to choose by. A class of the set is the run's class of the same name, or
    of the same number if `by_index`. The layout of an `npz:` file is, by default, what the run was
    trained with, and that of another set as `npz.load` says.

    Raises:
        UserError: if there is no such set, it cannot be had, its images or classes do not fit, or
            no examples are set aside.
    """
    own = name == run.config.data.dataset
    if layout is None:
        layout = run.config.data.layout if own else npz.AS_WRITTEN
    dataset = load_dataset(name, data_dir=data_dir, layout=layout)
    if dataset.image_shape != run.image_shape or dataset.num_classes != run.num_classes:
        raise UserError(
            f"{name} has images of {dataset.image_shape} in {dataset.num_classes} classes, but the "
            f"network in {run.folder} takes {run.image_shape} in {run.num_classes} classes."
        )
    if own and (changed := run.changed_splits(dataset.fingerprints)):
        print(
            f"note: the {' and '.join(changed)} images of {name} are no longer those that "
            f"{run.folder} was trained with",
            file=sys.stderr,
        )
    if dataset.class_names != run.class_names and not by_index:
        dataset = _by_name(run, dataset)
    if run.labels_per_image is None and dataset.train.labels_per_image == 1:
        # As the run's own: its classes are present or not, also where it is always one that is.
        present = np.eye(run.num_classes, dtype=bool)
        dataset = _relabelled(dataset, lambda labels: present[labels])
    if split == "test":
        return dataset.limited(test=count).test
    chosen = hold_out(dataset, run.config.data.validation).limited().validation
    if chosen is None:
        raise UserError(
            f"the run in {run.folder} set no validation images aside: measure test ones."
        )
    return chosen


def _by_name(run: Run, dataset: Dataset) -> Dataset:
    """A data set whose labels are the numbers that a run has for classes of the same names."""
    unknown = [name for name in dataset.class_names if name not in run.class_names]
    if unknown:
        missing = [name for name in run.class_names if name not in dataset.class_names]
        raise UserError(
            f"{dataset.name} has {_listed(unknown)} where the network in {run.folder} has learned "
            f"{_listed(missing)}: rename the classes, or take both in their order with "
            "--classes-by-index."
        )
    numbers = np.array([run.class_names.index(name) for name in dataset.class_names], np.int32)

    def renumbered(labels: np.ndarray) -> np.ndarray:
        return labels[:, np.argsort(numbers)] if labels.ndim == 2 else numbers[labels]

    return dataclasses.replace(_relabelled(dataset, renumbered), class_names=run.class_names)


def _relabelled(dataset: Dataset, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """A data set with other labels, which are made of its own."""

    def changed(examples: Examples) -> Examples:
        own = examples if isinstance(examples, OnDisk) else stored(examples)
        return dataclasses.replace(own, labels=change(own.labels))

    own = dataset.validation
    return dataclasses.replace(
        dataset,
        train=changed(dataset.train),
        test=changed(dataset.test),
        validation=None if own is None else changed(own),
    )


def _listed(names: Sequence[str]) -> str:
    """Some classes, for a message."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"the class{'es' * (len(names) > 1)} {shown}"


def network_of(run: Run, model: nnx.Module) -> capsjax.Network:
    """The network of a run with what is done to its images, and the names of its classes."""
    return capsjax.Network(
        model,
        run.class_names,
        preprocessing=run.config.data.preprocessing,
        image_shape=run.image_shape,
        labels_per_image=run.labels_per_image,
    )


def lengths_of(model: nnx.Module, config: FitConfig, images: np.ndarray) -> np.ndarray:
    """The lengths `[n, classes]` of class capsules for images uint8 `[n, height, width, channels]`.

    The configuration says how the network sees them.
    """
    preprocessing, shape = config.data.preprocessing, images.shape[1:]
    return capsjax.Network(model, preprocessing=preprocessing, image_shape=shape).lengths(images)
