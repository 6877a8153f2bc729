"""The images that the benchmark trains on, and the speed of the feeds that bring them in."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from train.bench.timing import NO_END, Rounds, rates, seconds_of, time_rounds
from train.data import Dataset, Feed, Split, catalog, load_dataset, make_feed
from train.data.catalog import MADE_OF_MNIST
from train.data.feeds.streaming import StreamingFeed
from train.data.made.generated import GeneratedSplit

_TRAINING, _TEST = 60_000, 256
WORKERS = (0, 1, 2)


def load_or_imitate(name: str, *, data_dir: Path | None = None) -> tuple[Dataset, bool]:
    """A data set that is at hand, or random images of its shape, and whether it is an imitation.

    Those cost as much to train on. Nothing is downloaded; `data_dir` may hold the official files.

    Raises:
        UserError: if the files are not what they should be.
    """
    made = MADE_OF_MNIST.get(name)
    source = catalog.SOURCES.get("mnist" if made else name)
    if source is None or data_dir is not None or catalog.is_at_hand(name):
        return load_dataset(name, data_dir=data_dir), False
    random = np.random.default_rng(0)

    def split(size: int) -> Split:
        return Split(
            images=random.integers(0, 256, (size, *source.image_shape), dtype=np.uint8),
            labels=random.integers(0, len(source.class_names), size, dtype=np.int32),
        )

    imitation = Dataset(source.name, split(_TRAINING), split(_TEST), source.class_names)
    return made(imitation) if made else imitation, True


def measure_feeds(
    dataset: Dataset, *, batch_size: int, seed: int, mesh: Mesh, rounds: Rounds
) -> list[dict[str, Any]]:
    """Times the feeds of the training split: rows with `feed`, `workers`, `first_batch_seconds`.

    And the `rates`. They are the resident feed, which copies the images to the mesh, and the
    streaming one with 0, 1 and 2 worker processes; examples that are made are made by this process
    alone.

    Raises:
        UserError: if the batch is larger than the split, or the split does not fit on the devices.
    """
    split, rows = dataset.train, []
    order: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    workers = WORKERS[:1] if isinstance(split, GeneratedSplit) else WORKERS
    feeds: list[tuple[str, int, Feed]] = [
        ("resident", 0, make_feed(split, kind="resident", mesh=mesh, **order)),
        *(("streaming", n, StreamingFeed(split, workers=n, **order)) for n in workers),
    ]
    for name, count, feed in feeds:
        bring = _bring(feed)
        row = {"feed": name, "workers": count, "first_batch_seconds": seconds_of(bring, 1)}
        rows.append({**row, **rates(batch_size, time_rounds(bring, rounds))})
    return rows


def _bring(feed: Feed) -> Callable[[int], None]:
    """What brings so many batches onto the devices."""
    batches, select = feed.batches(0, NO_END), jax.jit(feed.select)

    def run(times: int) -> None:
        for batch in itertools.islice(batches, times):
            arrived = select(feed.constants, batch)
        jax.block_until_ready(arrived)

    return run
