"""Reasons to end a run early, of accuracies one after the other."""

import itertools

import pytest

from train.config.settings import ScheduleConfig
from train.loop.early_end import EarlyEnd

ACCURACIES = [0.2, 0.5, 0.5, 0.4, 0.6, 0.6, 0.6, 0.1]


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ({}, None),
        ({"patience": 1}, 3),
        ({"patience": 2}, 4),
        ({"patience": 3}, 8),
        ({"patience": 4}, None),
        ({"stop_at_accuracy": 0.5}, 2),
        ({"stop_at_accuracy": 0.6, "patience": 3}, 5),
        ({"stop_at_accuracy": 0.7, "patience": 2}, 4),
    ],
)
def test_the_first_evaluation_with_a_reason_ends_the_run(schedule, due):
    settings = ScheduleConfig(**schedule)
    ends = [EarlyEnd(settings, ACCURACIES[:count]).is_due for count in range(9)]
    assert next(itertools.compress(range(9), ends), None) == due
    end = EarlyEnd(settings, ACCURACIES[:3])
    for accuracy in ACCURACIES[3:]:
        end.add(accuracy)
    assert end.reasons == EarlyEnd(settings, ACCURACIES).reasons
    assert end.is_possible == bool(schedule)
