import numpy as np
import pytest

from train.bench import data
from train.bench.data import load_or_imitate, measure_feeds
from train.bench.timing import Rounds
from train.learn.pmap import data_mesh
from train.system.errors import UserError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "_TRAINING", 100)


def test_what_is_embedded_is_real():
    dataset, synthetic = load_or_imitate("digits")
    assert not synthetic
    assert dataset.image_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("mnist", (28, 28, 1), 10),
        ("fashion_mnist", (28, 28, 1), 10),
        ("smallnorb", (48, 48, 2), 5),
        ("multi_mnist", (36, 36, 1), 10),
        ("affnist-generated", (40, 40, 1), 10),
    ],
)
def test_what_is_not_at_hand_is_imitated_and_not_downloaded(name, shape, classes):
    dataset, synthetic = load_or_imitate(name)
    assert synthetic
    assert (dataset.name, dataset.image_shape, dataset.num_classes) == (name, shape, classes)
    assert len(np.unique(dataset.train.gather(np.arange(9)).images)) > 200


def test_files_that_are_named_are_taken_or_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_or_imitate("mnist", data_dir=tmp_path)


@pytest.fixture
def feeds(monkeypatch):
    """Rows of 8 images, by a clock on which the rounds take 1 to 4 seconds."""

    def take(run, rounds):
        run(2)
        return [1.0, 2.0, 4.0]

    monkeypatch.setattr(data, "time_rounds", take)
    monkeypatch.setattr(data, "WORKERS", (0,))  # worker processes take seconds to start

    def measure(dataset, batch_size, devices):
        mesh = data_mesh(batch_size, devices)
        return measure_feeds(dataset, batch_size=batch_size, seed=0, mesh=mesh, rounds=Rounds())

    return measure


def test_every_feed_is_measured(dataset, feeds):
    rows = feeds(dataset, 8, 2)
    assert [(row["feed"], row["workers"]) for row in rows] == [("resident", 0), ("streaming", 0)]
    for row in rows:
        assert (row["images_per_second"], row["slowest"], row["fastest"]) == (4, 2, 8)
        assert row["first_batch_seconds"] > 0


def test_examples_that_are_made_are_made_by_this_process_alone(pairs, feeds, monkeypatch):
    monkeypatch.setattr(data, "WORKERS", (0, 1))
    assert [row["workers"] for row in feeds(pairs, 8, 1)] == [0, 0]


def test_a_batch_larger_than_the_split_is_refused(dataset, feeds):
    with pytest.raises(UserError, match="a batch of 80 is larger than the training set of 40"):
        feeds(dataset, 80, 1)
