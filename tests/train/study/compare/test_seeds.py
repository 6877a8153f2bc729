"""All seeds at once come to what each comes to by itself."""

import jax

from tests.tolerance import assert_close
from train.learn.program import assemble
from train.study.compare.seeds import SeedsProgram


def test_each_seed_learns_what_it_learns_alone(config, dataset):
    """In twenty steps, which are more than one dispatch has."""
    config = config.changed(max_shift=1, ema_decay=0.5, steps=20)
    taken = []
    trained = SeedsProgram(config, dataset, [0, 3]).train(taken.append)
    assert taken == [16, 4]
    assert trained.total == 20
    assert trained.step_bytes > 0
    assert trained.images_per_second > 0
    for index, seed in enumerate([0, 3]):
        program = assemble(config.changed(seed=seed), dataset, feed_kind="resident", devices=1)
        program.train(list(program.feed.batches(0, 20)))
        ours = jax.tree.map(lambda x, index=index: x[index], trained.states)
        assert int(ours.step) == 20
        for mine, theirs in zip(
            jax.tree.leaves(ours.weights), jax.tree.leaves(program.state.weights), strict=True
        ):
            assert_close(mine, theirs, reduction_length=64 * 64)
