import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import capsjax
from train.__main__ import COMMANDS
from train.data import load_dataset
from train.data.catalog import SOURCES
from train.learn.network import build_model
from train.learn.optimizer import learning_rate
from train.options.command import parse
from train.options.recipe import with_settings
from train.presets import describe_preset, fitting_preset, get_preset, list_presets
from train.study.compare.cells import own_recipe
from train.system.errors import UserError

ROOT = Path(__file__).parents[2]
DIGITS = (8, 8, 1)
SHAPES = {"digits": DIGITS, "multi_mnist": (36, 36, 1), "mnist-40x40": (40, 40, 1)}
"""Of the sets that are not made from official files alone; all have 10 classes."""


@pytest.mark.parametrize("name", list_presets())
class TestEveryPreset:
    def test_has_a_file_of_its_name(self, name):
        assert (ROOT / "train" / "presets" / f"{name.replace('-', '_')}.py").exists()
        assert get_preset(name).preset == name

    def test_describes_a_network_for_its_images(self, name):
        config = get_preset(name)
        source = SOURCES.get(config.data.dataset)
        shape, classes = (
            (source.image_shape, len(source.class_names))
            if source
            else (SHAPES[config.data.dataset], 10)
        )
        model = nnx.eval_shape(lambda: build_model(config, shape, classes))
        assert model.num_classes == classes

    def test_tells_command_hardware_time_and_result(self, name):
        text = describe_preset(name)
        assert re.search(r"Hardware: .+", text)
        assert re.search(r"Time: .+", text)
        assert re.search(r"Result: .+", text)

    def test_tells_a_command_that_runs_it(self, name):
        commands = re.findall(r"`python -m train (fit [^`]+)`", describe_preset(name))
        assert commands
        for command in commands:
            fit = parse("train", "", COMMANDS, shlex.split(command))
            assert fit.preset == name
            with_settings(get_preset(name), fit.settings)


def measured_in_folds(name):
    """The cells of a record of the digits, and their accuracies."""
    for path in (ROOT / "docs" / "results" / name).glob("*.json"):
        for cell in json.loads(path.read_text())["cells"]:
            assert (cell["identity"]["folds"], cell["test_examples"]) == (5, 1438)
            (accuracy,) = cell["accuracy"]
            yield cell, accuracy


def good_enough(found):
    """What is within a standard error of the most accurate, of pairs with the accuracies."""
    best = max(accuracy for _, accuracy in found)
    least = best - np.sqrt(best * (1 - best) / 1438)
    return [each for each, accuracy in found if accuracy >= least]


def least_of(cost, name, model):
    """The settings of least cost of those that are good enough."""
    found = [each for each in measured_in_folds(name) if each[0]["model"] == model]
    return min(good_enough(found), key=cost)["identity"]["config"]


@pytest.mark.parametrize("model", capsjax.list_models())
def test_folds_of_the_training_images_chose_the_recipes_of_the_digits(model):
    """As docs/guides/compare.md says."""
    recipe = own_recipe(model, "digits").flat()
    sizes = least_of(lambda cell: (cell["parameters"], -cell["accuracy"][0]), "digits-sizes", model)
    for options in ("model_options", "routing_options"):
        assert recipe[options] == sizes[options]
    rate = least_of(lambda cell: cell["identity"]["config"]["learning_rate"], "digits-rates", model)
    assert recipe == rate


def test_folds_of_the_training_images_chose_batch_and_length_of_the_digits():
    found: dict[tuple[int, float, str], list[float]] = {}
    for cell, accuracy in measured_in_folds("digits-schedules"):
        config = cell["identity"]["config"]
        recipe = config["batch_size"], config["epochs"], config["schedule"]
        found.setdefault(recipe, []).append(accuracy)
    enough = good_enough([(recipe, np.mean(of_recipe)) for recipe, of_recipe in found.items()])
    fewest = min(epochs / batch for batch, epochs, _ in enough)
    recipe = get_preset("digits").flat()
    batch, epochs, schedule = (recipe[name] for name in ("batch_size", "epochs", "schedule"))
    assert (batch, epochs, schedule) in enough
    assert epochs / batch == fewest


def test_the_digits_are_the_size_that_is_tested_here():
    assert load_dataset("digits").image_shape == DIGITS


def test_an_unknown_preset_lists_the_right_ones():
    with pytest.raises(
        UserError,
        match=r"unknown preset 'mnits' \(did you mean mnist\?\), choose from: affnist, .*fashion",
    ):
        get_preset("mnits")


@pytest.mark.parametrize(
    ("dataset", "shape", "name"),
    [
        ("smallnorb", (96, 96, 2), "smallnorb"),
        ("folder:photos", (8, 200, 3), "digits"),
        ("folder:photos", (18, 18, 3), "mnist-small"),
        ("npz:x.npz", (64, 48, 1), "mnist-small"),
    ],
)
def test_a_recipe_fits_the_data(dataset, shape, name):
    assert fitting_preset(dataset, shape) == name
    if name != dataset:
        build_model(get_preset(name).changed(dataset=dataset), shape, 2)


@pytest.mark.parametrize(("name", "steps"), [("mnist-authors", 2_000), ("multi_mnist", 20_000)])
def test_the_published_rates_fall_by_four_percent(name, steps):
    rate = learning_rate(get_preset(name), 50_000_000)
    np.testing.assert_allclose(rate(np.array([0, steps])), [1e-3, 0.96e-3], rtol=1e-6)
