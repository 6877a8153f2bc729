"""The search for each network's learning rate, the same for all networks of a claim."""

import math
from collections.abc import Mapping

from train.config.fit_config import FitConfig
from train.study.trial.definition import Arm

FACTORS = (1 / 3, 1, 3)
"""By which the learning rate of an arm is multiplied."""
SHARE = 1 / 3
"""Of the length of the training, for which a rate is tried."""
SEED = 1000
"""Of the networks that try a rate, and of no other."""


def candidates(arm: Arm) -> dict[float, FitConfig]:
    """By each learning rate that is tried, the training that tries it, on validation images."""
    config, schedule = arm.config, arm.config.schedule
    if schedule.steps is None:
        length = {"epochs": SHARE * schedule.epochs}
    else:
        length = {"steps": max(1, round(SHARE * schedule.steps))}
    rates = [float(f"{factor * schedule.learning_rate:.2g}") for factor in FACTORS]
    return {
        rate: config.changed(
            learning_rate=rate,
            seed=SEED,
            validation=None,
            stop_at_accuracy=None,
            patience=None,
            **length,
        )
        for rate in rates
    }


def searched(arm: Arm, accuracies: Mapping[float, float]) -> Arm:
    """The arm with the rate that has the highest of these accuracies on validation images.

    Of equal ones, such as those of networks that do not learn, it is the one nearest to its own.
    """
    own = arm.config.schedule.learning_rate
    best = max(accuracies, key=lambda rate: (accuracies[rate], -abs(math.log(rate / own))))
    return arm._replace(config=arm.config.changed(learning_rate=best), searched=dict(accuracies))
