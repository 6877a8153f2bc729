"""The images that the benchmark trains on, and the speed of the feeds that bring them in."""

import itertools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from train.bench.timing import Rounds, rates, time_rounds
from train.data import Dataset, Feed, Split, catalog, load_dataset, make_feed
from train.data.catalog import MADE_OF_MNIST
from train.data.feeds.streaming import StreamingFeed
from train.data.made.generated import GeneratedSplit

_TRAINING, _TEST = 60_000, 256
WORKERS = (0, 1, 2)
_NO_END = 10**9


def load_or_imitate(name: str, *, data_dir: Path | None = None) -> tuple[Dataset, bool]:
    """A data set if it is at hand, else random images of its shape, which cost as much to train on.

    Nothing is downloaded.

    Args:
        name: one of `list_datasets()`.
        data_dir: a folder with the set's official files.

    Returns:
        The data set, and whether it is an imitation.

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
    """Times the resident feed, and the streaming one with 0, 1 and 2 worker processes.

    Examples that are made are made by this process alone.

    Args:
        dataset: its training split is fed.
        batch_size: images in a batch.
        seed: of the order.
        mesh: the devices that a resident feed copies the images to.
        rounds: how often and how long.

    Returns:
        Rows with `feed`, `workers`, the `rates`, and `first_batch_seconds`.

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
        first, seconds = _time(feed, rounds)
        row = {"feed": name, "workers": count, **rates(batch_size, seconds)}
        rows.append({**row, "first_batch_seconds": first})
    return rows


def _time(feed: Feed, rounds: Rounds) -> tuple[float, list[float]]:
    """Seconds until the first batch is there, and seconds a batch in each round."""
    batches = feed.batches(0, _NO_END)
    select = jax.jit(feed.select)

    def run(times: int) -> None:
        for batch in itertools.islice(batches, times):
            arrived = select(feed.constants, batch)
        jax.block_until_ready(arrived)

    begun = time.perf_counter()
    run(1)
    return time.perf_counter() - begun, time_rounds(run, rounds)
