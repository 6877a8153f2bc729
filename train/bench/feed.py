"""How many images a second the data feeds bring onto the device, without any training."""

import itertools
import statistics
import time
from typing import Any

import jax
from jax.sharding import Mesh

from train.bench.timing import time_rounds
from train.data import Dataset, Feed, make_feed
from train.data.feeds.streaming import StreamingFeed
from train.data.made.generated import GeneratedSplit

WORKERS = (0, 1, 2)
_NO_END = 10**9


def measure_feeds(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    repetitions: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Measures the resident feed, and the streaming one with 0, 1 and 2 worker processes.

    Examples that are made are made by this process alone.

    Args:
        dataset: its training split is fed.
        batch_size: images in a batch.
        seed: of the order.
        mesh: the devices that a resident feed copies the images to.
        repetitions: number of rounds.
        seconds: about how long a round is.

    Returns:
        Rows with `feed`, `workers`, median `images_per_second`, its `slowest` and `fastest` round,
        and `first_batch_seconds`.

    Raises:
        UserError: if the batch is larger than the split, or the split does not fit on the devices.
    """
    split, rows = dataset.train, []
    several = () if isinstance(split, GeneratedSplit) else WORKERS[1:]
    feeds: list[tuple[str, int, Feed]] = [
        (
            "resident",
            0,
            make_feed(split, batch_size=batch_size, seed=seed, kind="resident", mesh=mesh),
        ),
        *(
            (
                "streaming",
                workers,
                StreamingFeed(split, batch_size=batch_size, seed=seed, workers=workers),
            )
            for workers in (0, *several)
        ),
    ]
    for name, workers, feed in feeds:
        first, rounds = _time(feed, repetitions=repetitions, seconds=seconds)
        rates = [batch_size / taken for taken in rounds]
        rows.append(
            {
                "feed": name,
                "workers": workers,
                "images_per_second": statistics.median(rates),
                "slowest": min(rates),
                "fastest": max(rates),
                "first_batch_seconds": first,
            }
        )
    return rows


def _time(feed: Feed, *, repetitions: int, seconds: float) -> tuple[float, list[float]]:
    """Seconds until the first batch is there, and seconds a batch in each round."""
    batches = feed.batches(0, _NO_END)
    select = jax.jit(feed.select)

    def run(times: int) -> None:
        for batch in itertools.islice(batches, times):
            arrived = select(feed.constants, batch)
        jax.block_until_ready(arrived)

    begun = time.perf_counter()
    run(1)
    first = time.perf_counter() - begun
    return first, time_rounds(run, repetitions=repetitions, seconds=seconds)
