"""`evaluate --inspect` and `--routing-iterations`."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from tests.tolerance import assert_close
from train.__main__ import main
from train.config.fit_config import FitConfig
from train.learn.network import build_model
from train.learn.objective import Objective
from train.presets import get_preset
from train.report.inspect import _look_inside
from train.run.folder import Run
from train.system.errors import UserError

DIGITS = (8, 8, 1)


def test_figures_and_numbers_of_every_iteration(digits_run, capsys):
    assert main(["evaluate", str(digits_run), "--inspect", "--devices", "1"]) == 0
    printed = capsys.readouterr().out
    assert "class_caps: " in printed
    assert "  entropy: " in printed
    result = json.loads((digits_run / "evaluations" / "digits-last.json").read_text())
    assert list(result["inspection"]) == ["class_caps"]
    found = result["inspection"]["class_caps"]
    assert [len(found[name]) for name in ("entropy", "agreement", "pose_change")] == [3, 3, 2]
    # Routing begins with equal shares for ten classes, and is more decided after.
    assert_close(np.float32(found["entropy"][0]), np.float32(np.log(10)), reduction_length=10)
    assert found["entropy"][2] < found["entropy"][0]
    for name in ("routing.png", "parts.png"):
        with Image.open(digits_run / "figures" / name) as image:
            assert len(image.convert("L").getcolors()) > 10


def test_another_number_of_iterations_than_in_training(digits_run, capsys):
    losses = set()
    for count in ("1", "5"):
        command = ["evaluate", str(digits_run), "--routing-iterations", count, "--devices", "1"]
        assert main([*command, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["routing_iterations"] == int(count)
        losses.add(result["loss"])
        kept = digits_run / "evaluations" / f"digits-last-{count}-iterations.json"
        assert json.loads(kept.read_text()) == result
    assert len(losses) == 2
    assert main(["evaluate", str(digits_run), "--routing-iterations", "0"]) == 2
    assert "--routing-iterations is 0" in capsys.readouterr().err


def test_a_network_without_capsules_cannot_be_looked_into(tmp_path, dataset, capsys):
    config = FitConfig.of(
        dataset="digits",
        model="cnn",
        model_options={"features": [2], "kernel_size": 3, "hidden": [4]},
        loss="cross_entropy",
    )
    model = build_model(config, DIGITS, 3)
    with pytest.raises(UserError, match="CNN has no layer of routed capsules"):
        _look_inside(model, Objective(), dataset.test.images)
    Run(tmp_path, config, DIGITS, tuple("0123456789")).save()
    assert main(["evaluate", str(tmp_path), "--routing-iterations", "2"]) == 2
    assert "cnn has no routing iterations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("matrix_capsnet", ["conv_caps.0", "class_caps"]),
        ("attention_capsnet", ["conv_caps.0", "conv_caps.1", "class_caps"]),
        ("deepcaps", ["cells.1.shortcut", "class_caps"]),
    ],
)
def test_every_layer_that_routes_is_looked_into(model, layers):
    """By shapes alone: tests/capsjax/test_inspection.py has the numbers."""
    config = get_preset(f"digits-{model}")
    found = {}

    def look(images):
        inspected, _, _ = _look_inside(build_model(config, DIGITS, 10), Objective(), images)
        found.update(inspected)

    jax.eval_shape(look, jax.ShapeDtypeStruct((4, *DIGITS), np.uint8))
    assert list(found) == layers
    for of_layer in found.values():
        iterations = len(of_layer.entropy)
        assert iterations > 1
        assert of_layer.coupling_change.shape == of_layer.pose_change.shape == (iterations - 1,)
        assert of_layer.dead.shape == ()
