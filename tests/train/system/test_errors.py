"""The word that somebody meant."""

import pytest

from train.config.checked import flag
from train.config.fit_config import SETTINGS
from train.presets import list_presets
from train.system.errors import UserError, did_you_mean, require_known

FLAGS = [*map(flag, SETTINGS), "--dataset", "--data-dir", "--out", "--devices"]


@pytest.mark.parametrize(
    ("word", "known", "nearest"),
    [
        ("--lr", FLAGS, "--learning-rate"),
        ("--batch", FLAGS, "--batch-size"),
        ("--stepz", FLAGS, "--steps"),
        ("--data_set", FLAGS, "--dataset"),
        ("--sed", FLAGS, "--seed"),
        ("minst", list_presets(), "mnist"),
        ("MNIST", list_presets(), "mnist"),
        ("fashion-mnist", list_presets(), "fashion_mnist"),
    ],
)
def test_the_nearest_name(word, known, nearest):
    assert did_you_mean(word, known) == f" (did you mean {nearest}?)"


def test_a_word_like_no_name():
    assert did_you_mean("--", FLAGS) == did_you_mean("x", FLAGS) == ""
    assert did_you_mean("", ["a"]) == did_you_mean("a", []) == ""


def test_a_name_that_is_not_known_is_told_with_all_that_are():
    require_known("colour", ["red"], ["red", "green"])
    with pytest.raises(
        UserError, match=r"'gren' \(did you mean green\?\), choose from: red, green\."
    ):
        require_known("colour", ["red", "gren"], ["red", "green"])
