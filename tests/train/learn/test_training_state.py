"""Initial values, drawn by one program for all seeds, are those of a network made by itself."""

import jax

from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.learn.network import build_model
from train.learn.optimizer import build_optimizer
from train.learn.training_state import draw_states, initial_state

SHAPES = (8, 8, 1), 10


def test_initial_values_are_those_of_a_network_made_by_itself():
    config = FitConfig.of(
        model_options={"conv_features": 8, "conv_kernel": 3, "primary_kernel": 3},
        ema_decay=0.9,
    )
    optimizer, seeds = build_optimizer(config), [0, 3]
    graphdef, states = draw_states(config, *SHAPES, optimizer, axis=None, seeds=seeds)
    for seed, drawn in zip(seeds, states, strict=True):
        own = config.changed(seed=seed)
        expected_graphdef, expected = initial_state(build_model(own, *SHAPES), optimizer, own)
        assert graphdef == expected_graphdef
        assert jax.tree.structure(drawn) == jax.tree.structure(expected)
        drawn, expected = (
            state._replace(key=jax.random.key_data(state.key)) for state in (drawn, expected)
        )
        for ours, theirs in zip(jax.tree.leaves(drawn), jax.tree.leaves(expected), strict=True):
            assert_close(ours, theirs)
