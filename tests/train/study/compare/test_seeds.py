"""All seeds at once come to what each comes to by itself."""

import jax
import numpy as np
import pytest

from train.learn.program import assemble
from train.study.compare.seeds import SeedsProgram


@pytest.mark.parametrize("max_shift", [0, 1])
def test_each_seed_learns_what_it_learns_alone(max_shift, config, dataset):
    config = config.changed(max_shift=max_shift, ema_decay=0.5)
    trained = SeedsProgram(config, dataset, [0, 3]).train()
    assert trained.steps == 6
    for index, seed in enumerate([0, 3]):
        own = config.changed(seed=seed)
        program = assemble(own, dataset, feed_kind="resident", devices=1)
        program.train(list(program.feed.batches(0, 6)))
        ours = jax.tree.map(lambda x, index=index: x[index], trained.states)
        assert int(ours.step) == 6
        for path, theirs in jax.tree_util.tree_leaves_with_path(program.state.weights):
            mine = ours.weights
            for key in path:
                mine = mine[key.key]
            np.testing.assert_allclose(
                mine, theirs, rtol=0, atol=1e-5, err_msg=jax.tree_util.keystr(path)
            )


def test_progress_is_told_and_what_a_step_needs(config, dataset):
    told = []
    program = SeedsProgram(config.changed(steps=20), dataset, [0])
    trained = program.train(told.append)
    assert told == [16, 4]
    assert trained.step_bytes > 0
    assert trained.images_per_second > 0
