"""The streaming feed."""

import sys
import time
from typing import Any

import numpy as np
import pytest

from tests.train.conftest import run_python
from train.data.feeds import streaming
from train.data.feeds.order import Order
from train.data.feeds.streaming import StreamingFeed
from train.data.made.multi_mnist import PairSplit
from train.system.errors import UserError


def test_without_grain_a_sentence_says_what_to_do(split, mesh, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match="needs grain, which is not installed: install .*resident"):
        StreamingFeed(split, Order.of(split, batch_size=8, seed=0), mesh)


def test_worker_processes_do_not_make_examples(split, mesh):
    made = PairSplit(split, versions=2, seed=0)
    order = Order.of(made, batch_size=8, seed=0)
    with pytest.raises(UserError, match="2 worker processes cannot make examples"):
        StreamingFeed(made, order, mesh, workers=2)


def test_batches_are_the_orders_examples_in_the_steps_order(split, mesh):
    order = Order(len(split), batch_size=8, seed=3)
    feed = StreamingFeed(split, order, mesh)
    batches = list(feed.batches(2, 40))
    assert len(batches) == 38
    for step, batch in enumerate(batches, start=2):
        np.testing.assert_array_equal(batch["images"], split.images[order.indices(step)])
        np.testing.assert_array_equal(batch["labels"], split.labels[order.indices(step)])
        assert (batch["images"].dtype, batch["labels"].dtype) == (np.uint8, np.int32)


def test_nothing_stays_on_the_device(split, mesh):
    assert StreamingFeed(split, Order.of(split, batch_size=8, seed=0), mesh).constants == {}


def test_worker_processes_give_the_same_batches(split, mesh):
    order = Order.of(split, batch_size=4, seed=0)
    alone, helped = (
        [*StreamingFeed(split, order, mesh, workers=workers).batches(0, 7)] for workers in (0, 2)
    )
    for ours, theirs in zip(helped, alone, strict=True):
        for name, array in theirs.items():
            np.testing.assert_array_equal(ours[name], array)
            assert type(ours[name]) is np.ndarray  # of no shared memory, which would be left behind


def work(has_begun: Any) -> None:
    """What a worker does after Grain has begun it."""
    streaming._belong_to_parent(0, 1)
    has_begun.set()
    time.sleep(600)


def test_a_worker_leaves_signals_to_its_parent_and_ends_with_it():
    program = (
        "import multiprocessing, os, signal\n"
        "from tests.train.data.feeds.test_streaming import work\n"
        "context = multiprocessing.get_context('spawn')\n"
        "has_begun = context.Event()\n"
        "worker = context.Process(target=work, args=(has_begun,))\n"
        "worker.start()\n"
        "has_begun.wait(40)\n"
        "os.kill(worker.pid, signal.SIGINT)\n"
        "os.kill(worker.pid, signal.SIGTERM)\n"
        "worker.join(0.5)\n"
        "print(worker.is_alive(), flush=True)\n"
        "os._exit(0)\n"
    )
    # It comes back when nobody has its output open any more, and after a minute fails.
    assert run_python(program).stdout == "True\n"
