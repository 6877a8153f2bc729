"""Examples that are made: the same everywhere, and numbered as the feeds need them."""

import pickle

import jax
import numpy as np
import pytest

from train.data import Split, stored
from train.data.made.multi_mnist import PairSplit
from train.system.errors import UserError


@pytest.fixture(scope="module")
def made(split) -> PairSplit:
    return PairSplit(split, versions=3, seed=5)


@pytest.fixture(scope="module")
def whole(made):
    return made.gather(np.arange(len(made)))


def same(ours, theirs) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_an_example_is_the_same_alone_in_a_batch_and_on_every_device(made, whole):
    some = np.asarray([60, 0, 23, 24, 68, 1, 5, 23])
    same(made.gather(some), jax.tree.map(lambda array: array[some], whole))
    select = jax.pmap(made.select, in_axes=(None, 0), devices=jax.devices()[:2])
    on_two = select(made.constants, some.astype(np.int32).reshape(2, 4))
    for ours, theirs in zip(on_two, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(ours), theirs[some])


@pytest.mark.parametrize("setting", [jax.enable_x64(True), jax.default_prng_impl("rbg")])
def test_no_setting_of_the_users_changes_an_example(made, whole, setting):
    with setting:
        again = PairSplit(made.source, versions=3, seed=5).gather(np.arange(len(made)))
    same(again, whole)


def test_another_seed_is_another_set(whole, split):
    other = PairSplit(split, versions=3, seed=6).gather(np.arange(len(whole.labels)))
    assert (other.images != whole.images).any(axis=(1, 2, 3)).mean() > 0.9


def test_versions_of_an_image_differ(whole):
    first, second = (jax.tree.map(lambda array, i=i: array[i : i + 23], whole) for i in (0, 23))
    np.testing.assert_array_equal(first.labels[:, 0], second.labels[:, 0])
    assert (first.images != second.images).any(axis=(1, 2, 3)).all()


def test_the_first_are_the_first(made, whole):
    first = made.subset(30)
    assert (len(first), first.block) == (30, 23)
    same(first.gather(np.arange(30)), jax.tree.map(lambda array: array[:30], whole))


def test_any_number_at_once(made):
    for count in (1, 69, 3):
        assert len(made.gather(np.arange(count)).labels) == count


def test_another_process_gets_what_decides_the_examples_and_no_program(made):
    before = made.gather(np.arange(5))
    arrived = pickle.loads(pickle.dumps(made))
    assert set(vars(arrived)) == {"source", "versions", "seed", "count"}
    same(arrived.gather(np.arange(5)), before)


def test_more_than_can_be_numbered(split):
    with pytest.raises(UserError, match="100000000 examples of each of 23 images are more than"):
        PairSplit(split, versions=10**8, seed=0)


def test_what_is_made_is_not_stored(made):
    assert stored(made.source) is made.source
    with pytest.raises(UserError, match="69 examples are made one by one, but are needed as a who"):
        stored(made)


def test_sizes_are_known_before_anything_is_made(made):
    assert isinstance(made.source, Split)
    assert made.image_shape == (14, 13, 1)
    assert len(made) == 69
