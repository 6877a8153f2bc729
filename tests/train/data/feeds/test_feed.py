"""Both feeds give the same batches, and the right one is chosen."""

import jax
import numpy as np
import pytest

from train.data import Order, make_feed
from train.data.feeds import feed as feeds
from train.data.feeds.feed import ResidentFeed
from train.data.feeds.streaming import StreamingFeed
from train.data.made.multi_mnist import PairSplit
from train.system.errors import UserError


@pytest.fixture(scope="module", params=["stored", "made"])
def split(request, split):
    """Stored examples, or pairs of them that are made."""
    return split if request.param == "stored" else PairSplit(split, versions=2, seed=7).subset(23)


class Device:
    """A device as far as its memory goes."""

    def __init__(self, limit: int, in_use: int) -> None:
        self.memory = {"bytes_limit": limit, "bytes_in_use": in_use}

    def memory_stats(self):
        return self.memory


def test_both_feeds_give_the_same_batches(split, mesh):
    resident, streaming = (
        make_feed(split, batch_size=8, seed=4, kind=kind, mesh=mesh)
        for kind in ("resident", "streaming")
    )
    assert isinstance(resident, ResidentFeed)
    assert isinstance(streaming, StreamingFeed)
    select = [jax.jit(feed.select) for feed in (resident, streaming)]
    pairs = zip(resident.batches(0, 9), streaming.batches(0, 9), strict=True)
    for ours, theirs in pairs:
        batch = select[0](resident.constants, ours)
        jax.tree.map(np.testing.assert_array_equal, batch, select[1](streaming.constants, theirs))
        assert (batch.images.dtype, batch.labels.dtype) == (np.uint8, np.int32)
        assert (batch.parts is None) == (split.labels_per_image == 1)


@pytest.mark.parametrize("kind", ["resident", "streaming"])
def test_labels_stay_with_their_images(split, mesh, kind):
    feed = make_feed(split, batch_size=23, seed=0, kind=kind, mesh=mesh)
    (batch,) = feed.batches(0, 1)
    seen = jax.device_get(jax.jit(feed.select)(feed.constants, batch))
    given = split.gather(np.arange(23))

    def each(batch):
        return sorted((i.tobytes(), y.tolist()) for i, y in zip(*batch[:2], strict=True))

    assert each(seen) == each(given)


@pytest.mark.parametrize("kind", ["resident", "streaming"])
def test_resuming_needs_the_step_only(split, mesh, kind):
    feed = make_feed(split, batch_size=8, seed=4, kind=kind, mesh=mesh)
    whole = list(feed.batches(0, 8))[5:]
    resumed = list(make_feed(split, batch_size=8, seed=4, kind=kind, mesh=mesh).batches(5, 8))
    for ours, theirs in zip(whole, resumed, strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("kind", ["resident", "streaming"])
def test_no_steps_are_no_batches(split, mesh, kind):
    feed = make_feed(split, batch_size=8, seed=4, kind=kind, mesh=mesh)
    assert list(feed.batches(3, 3)) == []


@pytest.mark.parametrize("kind", ["resident", "streaming"])
def test_a_batch_larger_than_the_data(split, mesh, kind):
    with pytest.raises(UserError, match="batch of 24 is larger than the training set of 23"):
        make_feed(split, batch_size=24, seed=0, kind=kind, mesh=mesh)


def test_auto_is_resident_up_to_the_last_byte_that_fits(split, mesh, monkeypatch):
    needed = sum(x.nbytes for x in split.constants.values()) * len(jax.devices())
    monkeypatch.setattr(feeds, "RESIDENT_CPU_BYTES", needed)
    assert isinstance(make_feed(split, batch_size=8, seed=0, mesh=mesh), ResidentFeed)
    monkeypatch.setattr(feeds, "RESIDENT_CPU_BYTES", needed - 1)
    assert isinstance(make_feed(split, batch_size=8, seed=0, mesh=mesh), StreamingFeed)
    with pytest.raises(UserError, match="use the streaming feed"):
        make_feed(split, batch_size=8, seed=0, kind="resident", mesh=mesh)


def test_room_is_a_share_of_the_fullest_devices_free_memory():
    class TwoDevices:
        local_devices = (Device(1000, 200), Device(1000, 600))

    assert feeds._room_per_device(TwoDevices()) == int(feeds.RESIDENT_FRACTION * 400)


@pytest.mark.parametrize("kind", ["resident", "streaming"])
def test_a_feed_knows_what_a_step_sends(split, mesh, kind):
    feed = make_feed(split, batch_size=7, seed=0, kind=kind, mesh=mesh)
    (batch,) = feed.batches(0, 1)
    assert feed.batch_bytes == sum(array.nbytes for array in batch.values())
    assert {name: (7, *one.shape) for name, one in feed.example.items()} == {
        name: array.shape for name, array in batch.items()
    }
    assert all(feed.example[name].dtype == array.dtype for name, array in batch.items())


def test_a_resident_split_is_on_every_device_once(split, mesh):
    feed = ResidentFeed(split, Order.of(split, batch_size=8, seed=0), mesh)
    for name, array in split.constants.items():
        constant = feed.constants[name]
        assert constant.is_fully_replicated
        assert constant.dtype == array.dtype
        assert constant.sharding.device_set == set(jax.devices())
        np.testing.assert_array_equal(constant, array)


def test_a_step_of_a_resident_feed_sends_indices_only(split, mesh):
    order = Order.of(split, batch_size=8, seed=3)
    feed = ResidentFeed(split, order, mesh)
    for step, batch in enumerate(feed.batches(2, 5), start=2):
        assert set(batch) == {"indices"}
        assert batch["indices"].dtype == np.int32
        np.testing.assert_array_equal(batch["indices"], order.indices(step))


def test_select_in_a_pmapped_step(split, mesh):
    """As the training step calls it: constants whole, the batch cut into one slice a device."""
    count = len(jax.devices())
    feed = ResidentFeed(split, Order.of(split, batch_size=2 * count, seed=1), mesh)
    (batch,) = feed.batches(0, 1)
    sliced = {"indices": batch["indices"].reshape(count, 2)}
    selected = jax.pmap(feed.select, in_axes=(None, 0))(feed.constants, sliced)
    expected = split.gather(batch["indices"])
    for ours, theirs in zip(jax.tree.leaves(selected), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.concatenate(ours), theirs)
