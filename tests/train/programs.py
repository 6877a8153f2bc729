"""Programs that tests share: what is compiled once is not compiled again."""

import dataclasses

import jax
import jax.numpy as jnp

from train.config.fit_config import FitConfig
from train.data import Dataset
from train.learn.trainer import Trainer, assemble


class Programs:
    """Assembles programs, as `assemble` does, each with a state of its own.

    Programs that differ in nothing that is compiled have the same steps: those of the same data
    set, devices and configuration, apart from length and cadence.
    """

    def __init__(self) -> None:
        self._made: dict[tuple, Trainer] = {}

    def __call__(self, config: FitConfig, dataset: Dataset, **options: object) -> Trainer:
        compiled = config.changed(
            log_every=1, evaluate_every=1, checkpoint_every=1, stop_at_accuracy=None, patience=None
        )
        if not config.schedule.rate_follows_length:
            compiled = compiled.changed(steps=1)
        key = (repr(compiled), id(dataset), repr(sorted(options.items())))
        if key not in self._made:
            self._made[key] = assemble(config, dataset, **options)
        made = self._made[key]
        fresh = jax.tree.map(jnp.copy, made.state)
        return dataclasses.replace(made, config=config, state=fresh)
