"""Images of two classes: all seeds at once learn them, and what `compare` measures is of one."""

import jax
import pytest

from tests.tolerance import assert_close
from train.learn.program import assemble
from train.study.compare import runner
from train.study.compare.seeds import SeedsProgram
from train.system.errors import UserError


def test_all_seeds_at_once_are_each_seed_by_itself(config, pairs):
    config = config.changed(dataset="multi_mnist", train_examples=40, steps=3)
    at_once = SeedsProgram(config, pairs.limited(train=40), [0, 1]).train().states
    for number, seed in enumerate((0, 1)):
        alone = assemble(config.changed(seed=seed), pairs, devices=1)
        alone.train(list(alone.feed.batches(0, 3)))
        params = jax.tree.leaves(at_once.params), jax.tree.leaves(alone.state.params)
        for ours, theirs in zip(*params, strict=True):
            assert_close(ours[number], theirs, reduction_length=64 * 64)


def test_compare_says_that_it_measures_one_class(pairs, monkeypatch):
    monkeypatch.setattr(runner, "load_dataset", lambda name, *, data_dir: pairs)
    with pytest.raises(UserError, match="images of multi_mnist are of 2 classes each"):
        runner._load("multi_mnist", None)
