"""The device-resident feed."""

import jax
import numpy as np
from jax.sharding import Mesh

from train.data.feeds.feed import ResidentFeed
from train.data.feeds.order import Order


def test_the_split_is_on_every_device_once(split):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    feed = ResidentFeed(split, batch_size=8, seed=0, mesh=mesh)
    for name, array in (("images", split.images), ("labels", split.labels)):
        constant = feed.constants[name]
        assert constant.is_fully_replicated
        assert constant.dtype == array.dtype
        assert constant.sharding.device_set == set(jax.devices())
        np.testing.assert_array_equal(constant, array)


def test_a_step_sends_indices_only(split):
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    feed = ResidentFeed(split, batch_size=8, seed=3, mesh=mesh)
    order = Order(len(split), batch_size=8, seed=3)
    for step, batch in enumerate(feed.batches(2, 5), start=2):
        assert set(batch) == {"indices"}
        assert batch["indices"].dtype == np.int32
        np.testing.assert_array_equal(batch["indices"], order.indices(step))


def test_select_in_a_pmapped_step(split):
    """As the training step calls it: constants whole, the batch cut into one slice a device."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    count = len(jax.devices())
    feed = ResidentFeed(split, batch_size=2 * count, seed=1, mesh=mesh)
    (batch,) = feed.batches(0, 1)
    sliced = {"indices": batch["indices"].reshape(count, 2)}
    images, labels, _ = jax.pmap(feed.select, in_axes=(None, 0))(feed.constants, sliced)
    np.testing.assert_array_equal(images, split.images[sliced["indices"]])
    np.testing.assert_array_equal(labels, split.labels[sliced["indices"]])
