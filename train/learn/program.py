"""Everything that a configuration needs in order to run on the devices at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from train.config.fit_config import FitConfig
from train.data import Dataset, Feed, FeedKind, make_feed
from train.learn.dispatch import room
from train.learn.metrics import Mean
from train.learn.network import (
    build_model,
    in_test,
    require_fitting_routing,
    structure,
    training_key,
)
from train.learn.objective import Objective
from train.learn.optimizer import build_optimizer
from train.learn.scoring import Evaluation, evaluate_split
from train.learn.step import (
    data_mesh,
    for_own_devices,
    make_evaluation_step,
    make_train_step,
    own_part,
    replicate,
    stack_batches,
)
from train.learn.update import AXIS, TrainState, initial_state
from train.system.errors import UserError


@dataclass
class Program:
    """A network in training: its state, and the steps that change and measure it.

    Attributes:
        config: what it computes.
        dataset: what it learns from.
        mesh: the devices it runs on.
        state: the network's and the optimiser's values, replicated over the mesh.
        feed: brings in the training examples.
        train_step: see `make_train_step`.
        evaluation_step: see `make_evaluation_step`.
        intervals: steps between two lines of metrics, two evaluations and two checkpoints.
        capacity: the most steps in a dispatch, see `dispatch.room`.
        agreed: what all processes wished in the last dispatch, see `make_train_step`; None before.
    """

    config: FitConfig
    dataset: Dataset
    mesh: Mesh
    state: TrainState
    feed: Feed
    train_step: Callable[..., Any]
    evaluation_step: Callable[..., Any]
    intervals: tuple[int, int, int]
    capacity: int
    agreed: jax.Array | None = None

    @property
    def total_steps(self) -> int:
        """The step that training ends with."""
        return self.config.schedule.total_steps(len(self.dataset.train))

    def train(self, batches: Sequence[Any], wishes: Sequence[int] = (0,)) -> dict[str, Mean]:
        """Takes a step on each batch of the feed, all in one dispatch, and waits for none.

        Args:
            batches: items of `feed.batches`. The program has room for `capacity`; for more, it is
                compiled anew.
            wishes: what this process has to say to the others, always as many numbers.

        Returns:
            The metrics of these steps, for `merge`; still on the devices, but on their way.
        """
        capacity = max(self.capacity, len(batches))
        self.state, metrics, self.agreed = self.train_step(
            self.state,
            self.feed.constants,
            # On its way at once: a dispatch that is sent while another is at work has its batches
            # on the devices when its turn comes.
            stack_batches(batches, capacity, self.mesh),
            np.int32(len(batches)),
            for_own_devices(wishes, self.mesh),
        )
        jax.tree.map(lambda array: array.copy_to_host_async(), (metrics, self.agreed))
        return metrics

    def evaluate(self) -> Evaluation:
        """Measures the network on the test split."""
        return evaluate_split(self.evaluation_step, self.state, self.dataset.test, self.mesh)

    def model(self) -> nnx.Module:
        """The network with its present parameters, for batches in one piece."""
        graphdef = structure(self.config, self.dataset.image_shape, self.dataset.num_classes)
        return in_test(nnx.merge(graphdef, self.state.weights, self.state.model_state))


def assemble(
    config: FitConfig, dataset: Dataset, *, feed_kind: FeedKind = "auto", devices: int | None = None
) -> Program:
    """Puts a program together; nothing is compiled or written yet.

    Args:
        config: what to compute.
        dataset: the data set that it names, as a whole.
        feed_kind: how training examples reach the devices.
        devices: how many devices of each process to use, all by default.

    Raises:
        UserError: if batch, devices, data and network do not fit each other.
    """
    objective, image_dtype = Objective.of(config), jnp.dtype(config.model.param_dtype)
    objective.require_fitting(dataset.labels_per_image)
    if config.data.max_shift >= min(dataset.image_shape[:2]):
        raise UserError(
            f"--max-shift is {config.data.max_shift}, but the images of {dataset.name} are "
            f"{dataset.image_shape[0]}x{dataset.image_shape[1]}: choose less than a side."
        )
    dataset = dataset.limited(config.data.train_examples, config.data.test_examples)
    mesh = data_mesh(config.schedule.batch_size, devices, config.schedule.micro_batches)
    feed = make_feed(
        dataset.train,
        batch_size=config.schedule.batch_size,
        seed=config.seed,
        kind=feed_kind,
        mesh=mesh,
        part=own_part(config.schedule.batch_size, mesh),
    )
    require_fitting_routing(config, dataset.image_shape, dataset.num_classes)
    model = build_model(config, dataset.image_shape, dataset.num_classes, axis=AXIS)
    optimizer = build_optimizer(config, len(dataset.train))
    averaged = config.optimizer.ema_decay is not None
    graphdef, state = initial_state(model, optimizer, training_key(config), averaged=averaged)
    if config.schedule.micro_batches > 1 and jax.tree.leaves(state.model_state):
        raise UserError(
            f"--micro-batches is {config.schedule.micro_batches}, but {config.model.name} "
            "normalises a batch as a whole: leave it out, or use more --devices."
        )
    examples = len(dataset.train)
    intervals = (
        config.schedule.log_every,
        config.schedule.evaluation_interval(examples),
        config.schedule.checkpoint_every,
    )
    return Program(
        config=config,
        dataset=dataset,
        mesh=mesh,
        state=replicate(state, mesh),
        feed=feed,
        train_step=make_train_step(
            graphdef,
            optimizer,
            feed.select,
            objective,
            max_shift=config.data.max_shift,
            image_dtype=image_dtype,
            mesh=mesh,
            micro_batches=config.schedule.micro_batches,
            ema_decay=config.optimizer.ema_decay,
            max_skipped=config.optimizer.max_skipped,
        ),
        evaluation_step=make_evaluation_step(
            graphdef, objective, image_dtype=image_dtype, mesh=mesh
        ),
        intervals=intervals,
        capacity=room(feed.batch_bytes),
    )
