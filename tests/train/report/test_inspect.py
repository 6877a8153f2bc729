"""`evaluate --inspect` and `--routing-iterations`."""

import itertools
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
from train.report import inspect
from train.report.inspect import look_inside
from train.run.folder import Run
from train.system.errors import UserError

DIGITS = (8, 8, 1)


def test_figures_and_numbers_of_every_iteration(digits_run, capsys):
    assert main(["evaluate", str(digits_run), "--inspect", "--devices", "1"]) == 0
    printed, told = capsys.readouterr()
    assert f"{digits_run / 'figures' / 'routing.png'} shows it" in told
    assert "class_caps: " in printed
    assert "  entropy: " in printed
    result = json.loads((digits_run / "evaluations" / "digits-last.json").read_text())
    assert list(result["inspection"]) == ["class_caps"]
    found = result["inspection"]["class_caps"]
    assert found["images"] == 256
    assert [len(found[name]) for name in ("entropy", "vote_cosine", "pose_change")] == [3, 3, 2]
    # Routing begins with equal shares for ten classes, and is more decided after.
    assert_close(np.float32(found["entropy"][0]), np.float32(np.log(10)), reduction_length=10)
    assert found["entropy"][2] < found["entropy"][0]
    assert found["uniform"] == found["entropy"][0]
    with Image.open(digits_run / "figures" / "routing.png") as image:
        assert len(image.convert("L").getcolors()) > 10


def test_all_routed_layers_are_looked_into(dataset):
    digits = get_preset("digits")
    options = {"conv_features": 4, "primary_types": 2, "hidden_capsules": [5, 3]}
    config = digits.changed(model_options={**digits.model.options, **options})
    model = build_model(config, DIGITS, 10)
    found, lengths, counts = look_inside(model, Objective.of(config), dataset.test.images)
    assert set(counts.values()) == {len(dataset.test)}
    assert list(found) == ["hidden_caps.0", "hidden_caps.1", "class_caps"]
    in_capsules = model.primary_caps.num_capsules
    for name, (below, above) in zip(
        found, itertools.pairwise((in_capsules, 5, 3, 10)), strict=True
    ):
        terms = len(dataset.test) * below * above  # of the mean
        uniform = np.float32(np.log(above))
        assert_close(found[name].entropy[0], uniform, reduction_length=terms)
        assert_close(found[name].uniform, uniform)
    assert lengths.shape == (len(dataset.test), 10)


def test_fewer_images_where_the_votes_of_all_take_too_much_are_told(monkeypatch, dataset):
    config = get_preset("digits")
    model = build_model(config, DIGITS, 10)
    a_vote = model.primary_caps.num_capsules * 10 * 16 * 4  # bytes, of all pairs in one image
    monkeypatch.setattr(inspect, "VOTES_BYTES", 3 * a_vote)
    found, lengths, counts = look_inside(model, Objective.of(config), dataset.test.images)
    assert counts == {"class_caps": 3}
    figure = inspect.draw_routing(found, np.asarray(lengths), counts, "title")
    of_layers, of_lengths = figure.axes[1], figure.axes[3]
    assert "3 images" in of_layers.lines[0].get_label()
    assert of_lengths.get_title().endswith("10 images")


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
        look_inside(model, Objective(), dataset.test.images)
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
        inspected, *_ = look_inside(build_model(config, DIGITS, 10), Objective(), images)
        found.update(inspected)

    jax.eval_shape(look, jax.ShapeDtypeStruct((4, *DIGITS), np.uint8))
    assert list(found) == layers
    for of_layer in found.values():
        iterations = len(of_layer.entropy)
        assert iterations > 1
        assert of_layer.coupling_change.shape == of_layer.pose_change.shape == (iterations - 1,)
        assert of_layer.dead.shape == ()
