"""Everything that a configuration needs in order to run on the devices at hand."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.config.fit_config import FitConfig
from train.data import Dataset, Examples, Feed, FeedKind, is_resident, make_feed
from train.distributed import processes
from train.learn.metrics import Mean
from train.learn.network import require_fitting_routing
from train.learn.objective import Objective
from train.learn.optimizer import build_optimizer
from train.learn.pmap import (
    data_mesh,
    make_dispatch,
    make_scoring_step,
    make_train_step,
    replicate,
)
from train.learn.scoring import Scores, score
from train.learn.step import AXIS
from train.learn.training_state import TrainState, learned, lower_draw, trained_model
from train.system.errors import UserError

T = TypeVar("T")

STEPS_PER_DISPATCH = 16
"""Steps that the devices have room for at once: by then, sending them costs next to nothing.

The room is a part of the compiled program, and two programs may round differently: it depends on
nothing that may change when a run is resumed.
"""

BYTES_PER_DISPATCH = 2**24
"""Bytes of batches in a dispatch, which are sent whether they are filled or not."""


@dataclass
class Trainer:
    """A network in training: its state, and the steps that change and measure it."""

    config: FitConfig
    dataset: Dataset  # what is learnt from
    mesh: Mesh
    state: TrainState  # replicated over the mesh
    feed: Feed
    train_step: Callable[..., Any]  # see `make_train_step`
    scoring_step: Callable[..., Any]  # see `make_scoring_step`
    stopping: jax.Array | int = 0
    """1 if any process was asked to stop before the last dispatch, on the devices."""
    compiled: Future | None = None  # the step, while it is compiled ahead

    @property
    def total_steps(self) -> int:
        """The step that training ends with."""
        return self.config.schedule.total_steps(len(self.dataset.train))

    @property
    def capacity(self) -> int:
        """The most steps in a dispatch."""
        return max(1, min(STEPS_PER_DISPATCH, BYTES_PER_DISPATCH // self.feed.batch_bytes))

    @property
    def intervals(self) -> tuple[int, int, int]:
        """Steps between two lines of metrics, two evaluations and two checkpoints."""
        schedule = self.config.schedule
        evaluate_every = schedule.evaluation_interval(len(self.dataset.train))
        return schedule.log_every, evaluate_every, schedule.checkpoint_every

    def steps_until_due(self, step: int, most: int) -> int:
        """Steps from `step` to the next line, evaluation, checkpoint or end, or the most allowed.

        That is no more than `capacity`, and `step` is less than `total_steps`.
        """
        due = (every - step % every for every in self.intervals)
        return min(most, self.capacity, self.total_steps - step, *due)

    def train(self, batches: Sequence[Any], *, stop: bool = False) -> dict[str, Mean]:
        """Takes a step on each batch of the feed, all in one dispatch, and waits for none.

        There are no more than `capacity`; `stop` is whether this process was asked to stop. The
        metrics of these steps, for `merge`, are still on the devices, but on their way.
        """
        if self.compiled is not None:
            self.compiled.result()
            self.compiled = None
        # Host arrays are on their way at once: a dispatch that is sent while another is at work has
        # its batches on the devices when its turn comes.
        dispatch = make_dispatch(batches, self.capacity, self.mesh, stop=stop)
        self.state, metrics, self.stopping = self.train_step(
            self.state, self.feed.constants, *dispatch
        )
        jax.tree.map(lambda array: array.copy_to_host_async(), (metrics, self.stopping))
        return metrics

    def lower(self, batch_size: int | None = None) -> jax.stages.Lowered:
        """The training step, lowered for its batches, or those of any size for its devices."""
        size = self.config.schedule.batch_size if batch_size is None else batch_size
        part = size * len(self.mesh.local_devices) // self.mesh.devices.size
        batch = {n: np.zeros((part, *x.shape), x.dtype) for n, x in self.feed.example.items()}
        dispatch = jax.eval_shape(lambda: make_dispatch([batch], self.capacity, self.mesh))
        return self.train_step.lower(  # type: ignore[attr-defined]
            self.state, self.feed.constants, *dispatch
        )

    def compile_ahead(self) -> None:
        """Has the step compiled by another thread, for which the first `train` waits."""
        self.compiled = _on_a_thread(self.lower().compile)

    def score(self, split: Examples) -> Scores:
        """Measures the network on a split."""
        return score(
            self.scoring_step,
            self.state,
            split,
            self.mesh,
            alone=not self.config.model.shares_logits,
        )

    def model(self) -> nnx.Module:
        """The network with its present parameters, for batches in one piece."""
        data = self.dataset
        return trained_model(self.config, data.image_shape, data.num_classes, self.state)


def assemble(
    config: FitConfig,
    dataset: Dataset,
    *,
    feed_kind: FeedKind = "auto",
    devices: int | None = None,
    trace: bool = False,
) -> Trainer:
    """Assembles a trainer for a whole data set; no step is compiled, and nothing written, yet.

    So many devices of each process are used, all by default. `trace` is whether the training step
    is traced already, while what draws the initial values is compiled.

    Raises:
        UserError: if batch, devices, data and network do not fit each other.
    """
    require_fitting(config, dataset)
    objective, dataset = Objective.of(config), config.data.choose(dataset)
    batch_size, micro_batches = config.schedule.batch_size, config.schedule.micro_batches
    mesh = data_mesh(batch_size, devices, micro_batches)
    resident = is_resident(dataset.train, feed_kind, mesh)
    with processes.all_or_none():
        dataset = dataset.in_memory() if resident else dataset
    feed = make_feed(
        dataset.train, batch_size=batch_size, seed=config.seed, kind=feed_kind, mesh=mesh
    )
    require_fitting_routing(config, dataset.image_shape, dataset.num_classes)
    optimizer = build_optimizer(config, len(dataset.train))
    shapes = dataset.image_shape, dataset.num_classes
    graphdef, state, draw = lower_draw(config, *shapes, optimizer, axis=AXIS, seeds=[config.seed])
    weights = objective.weigh(dataset.train.source_labels, dataset.num_classes)
    require_divisible(config, state)
    replicated = NamedSharding(mesh.local_mesh, PartitionSpec())
    trainer = Trainer(
        config=config,
        dataset=dataset,
        mesh=mesh,
        state=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), state
        ),
        feed=feed,
        train_step=make_train_step(graphdef, optimizer, feed.select, config, mesh, weights),
        scoring_step=make_scoring_step(graphdef, config, mesh),
    )
    drawn = _on_a_thread(draw)
    if trace:
        trainer.lower()  # which JAX keeps
    [drawn_state] = drawn.result()
    trainer.state = replicate(drawn_state, mesh)
    return trainer


def require_fitting(config: FitConfig, dataset: Dataset) -> None:
    """Refuses a whole data set that a network cannot learn as configured.

    Raises:
        UserError: if the loss is for other labels, or images would be shifted out of sight.
    """
    Objective.of(config).require_fitting(dataset.train.labels_per_image)
    if config.data.max_shift >= min(dataset.image_shape[:2]):
        raise UserError(
            f"--max-shift is {config.data.max_shift}, but the images of {dataset.name} are "
            f"{dataset.image_shape[0]}x{dataset.image_shape[1]}: choose less than a side."
        )


def require_divisible(config: FitConfig, state: TrainState) -> None:
    """Refuses micro-batches of a network that learns from a batch as a whole.

    Raises:
        UserError: if there are any.
    """
    micro_batches = config.schedule.micro_batches
    if micro_batches > 1 and jax.tree.leaves(learned(state.model_state, config.optimizer.freeze)):
        raise UserError(
            f"--micro-batches is {micro_batches}, but {config.model.name} normalises a batch as a "
            "whole: leave it out, or use more --devices."
        )


def _on_a_thread(function: Callable[[], T]) -> Future[T]:
    """Calls a function that leaves Python to others most of the time, as the compiler does."""
    thread = ThreadPoolExecutor(1)
    called = thread.submit(function)
    thread.shutdown(wait=False)
    return called
