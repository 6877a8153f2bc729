import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from train.config.fit_config import FitConfig
from train.options.command import Command, parse, settings
from train.options.recipe import with_settings
from train.presets import get_preset
from train.system.errors import UserError


@dataclass(kw_only=True)
class Fit(Command):
    """A command with the settings of a run."""

    settings: dict[str, Any] = settings()


def given(*arguments: str) -> dict[str, Any]:
    command = parse("program", "", [Fit], ["fit", *arguments])
    return dataclasses.asdict(command)["settings"]


def test_without_options_the_recipe_stands(config):
    assert with_settings(config, given()) == config


def test_options_replace_what_the_recipe_says(config):
    changed = with_settings(
        config, given("--steps", "9", "--learning-rate", "0.5", "--dtype", "bfloat16")
    )
    assert (changed.schedule.steps, changed.schedule.learning_rate, changed.model.dtype) == (
        9,
        0.5,
        "bfloat16",
    )
    assert changed.schedule.batch_size == config.schedule.batch_size


def test_named_values_are_added_to_those_of_the_recipe(config):
    changed = with_settings(
        config,
        given(
            *("--model-options", "conv_features=16", "decoder_hidden=[4,5]"),
            *("--model-options", "order=flat"),
        ),
    )
    assert changed.model.options["conv_features"] == 16
    assert changed.model.options["decoder_hidden"] == [4, 5]
    assert changed.model.options["order"] == "flat"
    assert changed.model.options["conv_kernel"] == config.model.options["conv_kernel"]


def test_a_switch_is_on_or_off_or_as_the_recipe_says(config):
    assert with_settings(config, given("--remat")).model.remat is True
    recipe = config.changed(remat=True)
    assert with_settings(recipe, given("--no-remat")).model.remat is False
    assert with_settings(recipe, given()).model.remat is True


def test_another_model_leaves_the_recipes_options_behind():
    recipe = get_preset("digits")
    changed = with_settings(recipe, given("--model", "cnn", "--model-options", "hidden=[8]"))
    assert recipe.model.options
    assert (changed.model.name, changed.model.options) == ("cnn", {"hidden": [8]})


def test_another_routing_leaves_the_recipes_options_of_its_own_behind():
    recipe = get_preset("digits-matrix_capsnet")
    assert recipe.model.routing_options
    other = with_settings(recipe, given("--routing", "dynamic"))
    assert (other.model.routing, other.model.routing_options) == ("dynamic", {})
    same = given("--routing", recipe.model.routing)
    assert with_settings(recipe, same).model.routing_options == recipe.model.routing_options


def test_what_a_recipe_says_of_another_choice_is_left_behind():
    recipe = FitConfig.of(optimizer="sgd", momentum=0.5)
    assert with_settings(recipe, given("--optimizer", "adam")).optimizer.momentum == 0.5
    changed = with_settings(FitConfig.of(), given("--optimizer", "sgd", "--momentum", "0.5"))
    assert changed.optimizer.momentum == 0.5


def test_epochs_replace_the_steps_of_the_recipe():
    changed = with_settings(FitConfig.of(steps=5), given("--epochs", "2"))
    assert (changed.schedule.steps, changed.schedule.epochs) == (None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "5", "--epochs", "2"], "give one of them"),
        (["--momentum", "0.5"], "--momentum is 0.5, but says nothing with --optimizer adam: leave"),
        (
            ["--loss", "spread", "--margin-power", "3"],
            "with --loss spread: .* margin there",
        ),
        (["--base-batch", "64"], "--base-batch is 64, .* --lr-scaling none: .* linear or sqrt"),
        (["--schedule", "cosine", "--decay-rate", "0.5"], "nothing with --schedule cosine"),
        (["--steps", "many"], "--steps: 'many' is not a whole number"),
        (["--learning-rate", "much"], "'much' is not a number"),
        (["--model-options", "conv_features"], "not of the form NAME=VALUE"),
        (["--step", "5"], r"unknown argument '--step' \(did you mean --steps\?\)"),
        (["--nonsense"], "the options of fit are .*--batch-size.*--steps"),
        (["--steps"], "expected one argument"),
    ],
)
def test_bad_options_are_told_in_a_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        with_settings(FitConfig.of(), given(*arguments))
