"""`evaluate --inspect` and `--routing-iterations`."""

import json

import pytest

from train.__main__ import main
from train.data import load_dataset
from train.learn.network import build_model, in_test
from train.learn.objective import Objective
from train.presets import get_preset
from train.report.inspect import inspect

FIT = ["fit", "digits", "--steps", "2", "--batch-size", "32", "--devices", "1"]
SMALL = ["--model-options", "conv_features=4", "primary_types=2", "decoder_hidden=[4]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("inspected") / "run"
    assert main([*FIT, *SMALL, "--out", str(out)]) == 0
    return out


def test_figures_and_numbers_of_every_iteration(run, capsys):
    assert main(["evaluate", str(run), "--inspect", "--devices", "1"]) == 0
    printed = capsys.readouterr().out
    assert "class_caps: " in printed
    assert "  entropy: " in printed
    result = json.loads((run / "evaluations" / "digits-last.json").read_text())
    assert list(result["inspection"]) == ["class_caps"]
    found = result["inspection"]["class_caps"]
    assert [len(found[name]) for name in ("entropy", "agreement", "pose_change")] == [3, 3, 2]
    for name in ("routing.png", "parts.png"):
        assert (run / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_another_number_of_iterations_than_in_training(run, capsys):
    losses = {}
    for count in ("1", "5"):
        command = ["evaluate", str(run), "--routing-iterations", count, "--devices", "1", "--json"]
        assert main(command) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["routing_iterations"] == int(count)
        losses[count] = result["loss"]
        kept = run / "evaluations" / f"digits-last-{count}-iterations.json"
        assert json.loads(kept.read_text()) == result
    assert losses["1"] != losses["5"]
    assert main(["evaluate", str(run), "--routing-iterations", "0"]) == 2
    assert "--routing-iterations is 0" in capsys.readouterr().err


def test_a_network_without_capsules_cannot_be_looked_into(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["fit", "digits-cnn", *FIT[2:], "--out", str(out)]) == 0
    assert main(["evaluate", str(out), "--inspect", "--devices", "1"]) == 2
    assert "CNN has no layer of routed capsules" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--routing-iterations", "2", "--devices", "1"]) == 2


@pytest.mark.parametrize(
    ("model", "options", "layers"),
    [
        ("matrix_capsnet", {"primary_types": 2, "caps_types": [2]}, ["conv_caps.0", "class_caps"]),
        (
            "attention_capsnet",
            {"backbone_features": [4], "primary_types": 2},
            ["conv_caps.0", "conv_caps.1", "class_caps"],
        ),
        (
            "deepcaps",
            {"types": 2, "conv_features": 4, "decoder_features": None},
            ["cells.1.shortcut", "class_caps"],
        ),
    ],
)
def test_every_layer_that_routes_is_looked_into(model, options, layers, tmp_path):
    config, dataset = get_preset(f"digits-{model}"), load_dataset("digits")
    config = config.changed(model_options={**config.model.options, **options})
    network = in_test(build_model(config, dataset.image_shape, dataset.num_classes))
    test, names = dataset.test.first(4), dataset.class_names
    found = inspect(network, Objective.of(config), test, names, tmp_path, "title")
    assert list(found) == layers
    for of_layer in found.values():
        iterations = len(of_layer["entropy"])
        assert iterations > 1
        assert len(of_layer["coupling_change"]) == iterations - 1
        assert 0 <= of_layer["dead"] <= 1
    assert (tmp_path / "routing.png").read_bytes().startswith(b"\x89PNG")
