"""All seeds at once come to what each comes to by itself."""

import jax
import pytest

from tests.tolerance import assert_close
from train.learn.trainer import assemble
from train.study.compare.seeds import SeedsTrainer


@pytest.mark.parametrize(
    ("name", "changes"),
    [("dataset", {"max_shift": 1, "ema_decay": 0.5}), ("pairs", {"dataset": "multi_mnist"})],
)
def test_each_seed_learns_what_it_learns_alone(name, changes, config, request):
    """In eighteen steps, which are more than one dispatch has."""
    config = config.changed(steps=18, train_examples=40, validation=0, **changes)
    data = config.data.choose(request.getfixturevalue(name))
    taken = []
    trained = SeedsTrainer(config, data, [0, 3]).train(taken.append)
    assert taken == [16, 2]
    assert trained.step_bytes > 0
    assert trained.images_per_second > 0
    for index, seed in enumerate([0, 3]):
        alone = assemble(config.changed(seed=seed), data, feed_kind="resident", devices=1)
        for first, end in ((0, 16), (16, 18)):
            alone.train(list(alone.feed.batches(first, end)))
        ours = jax.tree.map(lambda x, index=index: x[index], trained.states)
        assert int(ours.step) == 18
        for mine, theirs in zip(
            jax.tree.leaves(ours.weights), jax.tree.leaves(alone.state.weights), strict=True
        ):
            assert_close(mine, theirs, reduction_length=64 * 64)
