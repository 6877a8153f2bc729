"""The search for a learning rate."""

import pytest

from train.config.fit_config import FitConfig
from train.study.trial.definition import Arm
from train.study.trial.search import SEED, candidates, searched


@pytest.mark.parametrize(
    ("length", "expected"), [({"epochs": 9}, (None, 3)), ({"steps": 100}, (33, 10))]
)
def test_rates_are_tried_for_a_third_of_the_training_on_validation_images(length, expected):
    config = FitConfig.of(learning_rate=0.003, validation=0, stop_at_accuracy=0.9, seed=5, **length)
    tried = candidates(Arm("A", config))
    assert list(tried) == [0.001, 0.003, 0.009]
    for rate, found in tried.items():
        schedule = found.schedule
        assert (schedule.learning_rate, schedule.stop_at_accuracy) == (rate, None)
        assert (schedule.steps, schedule.epochs) == expected
        assert found.seed == SEED
        assert found.data.validation is None  # so that the images to choose by are set aside


def test_the_rate_with_the_best_validation_accuracy_is_taken():
    config = FitConfig.of(learning_rate=0.001)
    arm = searched(Arm("A", config, {"error": 1.0}), {0.001: 0.5, 0.002: 0.7, 0.006: 0.6})
    assert arm.config == config.changed(learning_rate=0.002)
    assert arm.searched == {0.001: 0.5, 0.002: 0.7, 0.006: 0.6}
    assert arm.paper == {"error": 1.0}


def test_of_rates_that_are_alike_the_recipes_own_is_taken():
    arm = Arm("A", FitConfig.of(learning_rate=0.003))
    assert searched(arm, dict.fromkeys((0.001, 0.003, 0.009), 0.1)).config == arm.config
