import pytest

from train.bench import feed
from train.bench.feed import measure_feeds
from train.learn.step import data_mesh
from train.system.errors import UserError


def test_every_feed_is_measured(dataset, monkeypatch):
    monkeypatch.setattr(feed, "WORKERS", (0,))  # worker processes take seconds to start
    rows = measure_feeds(
        dataset, batch_size=8, seed=0, mesh=data_mesh(8, 2), repetitions=3, seconds=1e-3
    )
    assert [(row["feed"], row["workers"]) for row in rows] == [("resident", 0), ("streaming", 0)]
    for row in rows:
        assert 0 < row["slowest"] <= row["images_per_second"] <= row["fastest"]
        assert row["first_batch_seconds"] > 0


def test_examples_that_are_made_are_made_by_this_process_alone(pairs):
    rows = measure_feeds(
        pairs, batch_size=8, seed=0, mesh=data_mesh(8, 1), repetitions=1, seconds=1e-3
    )
    assert [(row["feed"], row["workers"]) for row in rows] == [("resident", 0), ("streaming", 0)]


def test_a_batch_larger_than_the_split_is_refused(dataset):
    with pytest.raises(UserError, match="a batch of 80 is larger than the training set of 40"):
        measure_feeds(
            dataset, batch_size=80, seed=0, mesh=data_mesh(80, 1), repetitions=1, seconds=1e-3
        )
