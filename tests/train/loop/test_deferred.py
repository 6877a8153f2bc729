import jax
import jax.numpy as jnp
import pytest

from train.loop.deferred import DeferredWork


def all_done(*items: tuple) -> None:
    """Defers the items and does them."""
    with DeferredWork() as deferred:
        for results, work in items:
            deferred.add(results, work)
        deferred.do_all()


class Results:
    """Stands for an array on a device, whose arrival is a call."""

    def __init__(self, arrival=lambda: None) -> None:
        self.block_until_ready = arrival


def fails() -> None:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")


def test_work_is_done_in_order_and_once_after_its_results():
    done = []
    with DeferredWork() as deferred:
        for number in range(3):
            results = Results(lambda number=number: done.append(f"results {number}"))
            deferred.add([results], lambda number=number: done.append(f"work {number}"))
        assert done == []
        deferred.do_all()
        deferred.do_all()
        assert done == [f"{what} {n}" for n in range(3) for what in ("results", "work")]
        deferred.add(jnp.ones(3), lambda: done.append("left"))
    assert done[-1] == "left"


@pytest.mark.parametrize("ended", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_whatever_ends_the_body(ended):
    done = []

    def body() -> None:
        with DeferredWork() as deferred:
            deferred.add(jnp.ones(3), lambda: done.append(1))
            raise ended

    with pytest.raises(ended):
        body()
    assert done == [1]


def test_an_interrupted_wait_is_waited_for_again():
    done, interrupts = [], [KeyboardInterrupt]

    def interrupted() -> None:
        if interrupts:
            raise interrupts.pop()

    with pytest.raises(KeyboardInterrupt):
        all_done(
            (Results(interrupted), lambda: done.append(1)), (Results(), lambda: done.append(2))
        )
    assert done == [1, 2]


def test_nothing_comes_of_results_that_failed():
    done = []
    with pytest.raises(jax.errors.JaxRuntimeError):
        all_done(
            (Results(), lambda: done.append(1)),
            (Results(fails), lambda: done.append(2)),
            (Results(fails), lambda: done.append(3)),
        )
    assert done == [1]


def test_work_that_fails_is_not_tried_again():
    tried = []

    def work() -> None:
        tried.append(1)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        all_done((Results(), work))
    assert tried == [1]
