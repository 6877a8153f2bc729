import argparse

import pytest

from train.cli.config_options import UserErrorParser, add_config_options, config_changes
from train.config.fit_config import FitConfig
from train.presets import get_preset
from train.system.errors import UserError


def parse(*arguments: str) -> argparse.Namespace:
    parser = UserErrorParser(prog="program")
    fit = parser.add_subparsers(dest="command").add_parser("fit")
    fit.add_argument("--out")
    add_config_options(fit)
    return parser.parse_args(["fit", *arguments])


def test_without_options_the_recipe_stands(config):
    assert config_changes(config, parse()) == config


def test_options_replace_what_the_recipe_says(config):
    changed = config_changes(
        config, parse("--steps", "9", "--learning-rate", "0.5", "--dtype", "bfloat16")
    )
    assert (changed.schedule.steps, changed.schedule.learning_rate, changed.model.dtype) == (
        9,
        0.5,
        "bfloat16",
    )
    assert changed.schedule.batch_size == config.schedule.batch_size


def test_named_values_are_added_to_those_of_the_recipe(config):
    changed = config_changes(
        config, parse("--model-options", "conv_features=16", "decoder_hidden=[4,5]", "order=flat")
    )
    assert changed.model.options["conv_features"] == 16
    assert changed.model.options["decoder_hidden"] == [4, 5]
    assert changed.model.options["order"] == "flat"
    assert changed.model.options["conv_kernel"] == config.model.options["conv_kernel"]


def test_a_switch_is_on_or_off_or_as_the_recipe_says(config):
    assert config_changes(config, parse("--remat")).model.remat is True
    recipe = config.changed(remat=True)
    assert config_changes(recipe, parse("--no-remat")).model.remat is False
    assert config_changes(recipe, parse()).model.remat is True


def test_another_model_leaves_the_recipes_options_behind():
    recipe = get_preset("digits")
    changed = config_changes(recipe, parse("--model", "cnn", "--model-options", "hidden=[8]"))
    assert recipe.model.options
    assert (changed.model.name, changed.model.options) == ("cnn", {"hidden": [8]})


def test_epochs_replace_the_steps_of_the_recipe():
    changed = config_changes(FitConfig.of(steps=5), parse("--epochs", "2"))
    assert (changed.schedule.steps, changed.schedule.epochs) == (None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "5", "--epochs", "2"], "give one of them"),
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
        config_changes(FitConfig.of(), parse(*arguments))


def test_an_unknown_command_lists_the_right_ones():
    parser = UserErrorParser(prog="program")
    parser.add_subparsers(dest="command", required=True).add_parser("fit")
    with pytest.raises(UserError, match="invalid choice: 'fti' .*fit"):
        parser.parse_args(["fti"])
