"""What is compared, and by which recipes."""

import pytest

from train.presets import get_preset
from train.study.compare.cells import list_cells
from train.system.errors import UserError


def test_cells_are_all_combinations_each_once():
    cells = list_cells(["capsnet", "cnn"], ["published", "dynamic", "uniform"], ["digits"], {})
    assert [(c.model, c.routing) for c in cells] == [
        ("capsnet", "dynamic"),
        ("capsnet", "uniform"),
        ("cnn", "none"),
    ]
    (cell,) = list_cells(["cnn"], ["published"], ["digits"], {"epochs": 2})
    assert (cell.config.schedule.epochs, cell.config.schedule.steps) == (2, None)
    with pytest.raises(UserError, match="unknown data set"):
        list_cells(["capsnet"], ["published"], ["mnists"], {})


def test_a_setting_that_no_cell_heeds_is_refused():
    models = ["capsnet", "matrix_capsnet"]
    heeded = {"spread_steps": 7, "routing_iterations": 2}
    cells = list_cells(models, ["published"], ["digits"], heeded)
    assert [cell.config.objective.spread_steps for cell in cells] == [7, 7]
    with pytest.raises(UserError, match="--spread-steps is 7, but says nothing with --loss margin"):
        list_cells(["capsnet"], ["published"], ["digits"], {"spread_steps": 7})
    with pytest.raises(UserError, match="leave --routing-iterations out"):
        list_cells(["cnn", "capsnet"], ["uniform"], ["digits"], {"routing_iterations": 2})


def test_options_come_beside_those_of_a_recipe():
    options = {"model_options": [("primary_types", 4)], "routing_options": [("leaky", True)]}
    cells = list_cells(["capsnet"], ["dynamic", "dynamic-bias"], ["digits"], options)
    of_recipe = get_preset("digits").model.options
    assert cells[0].config.model.options == {**of_recipe, "primary_types": 4}
    assert [cell.config.model.routing_options for cell in cells] == [{"leaky": True}] * 2
    cells = list_cells(["capsnet", "cnn"], ["published"], ["digits"], options)
    assert [cell.config.model.routing_options for cell in cells] == [{"leaky": True}, {}]
    own = get_preset("digits-matrix_capsnet").model.routing_options
    (cell,) = list_cells(["matrix_capsnet"], ["em"], ["digits"], {"routing_options": [("a", 1)]})
    assert cell.config.model.routing_options == {**own, "a": 1}
    with pytest.raises(UserError, match="no routing to choose: leave --routing-options out"):
        list_cells(["cnn"], ["published"], ["digits"], options)


def test_parts_of_a_set_and_data_of_ones_own_have_recipes():
    azimuth, own = list_cells(["capsnet"], ["published"], ["smallnorb-azimuth", "folder:a/b"], {})
    assert azimuth.config == get_preset("smallnorb").changed(dataset="smallnorb-azimuth")
    assert (own.config.data.dataset, own.config.model.options) == ("folder:a/b", {})
    assert own.name == "folder-a-b-capsnet-dynamic"

    (cell,) = list_cells(["cnn"], ["published"], ["smallnorb-elevation"], {})
    assert cell.config.data.dataset == "smallnorb-elevation"
    assert cell.config.data.crop == get_preset("smallnorb").data.crop
    (cell,) = list_cells(["matrix_capsnet"], ["published"], ["smallnorb-azimuth"], {})
    assert cell.config.preset == "smallnorb-matrix_capsnet"
    assert cell.config.data.dataset == "smallnorb-azimuth"


def test_two_that_would_have_one_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.py").write_text(
            "from capsjax.routing import Uniform\n\nMine = Uniform\n"
        )
    with pytest.raises(UserError, match=r"a/r.py:Mine and b/r.py:Mine would have the same name"):
        list_cells(["capsnet"], ["a/r.py:Mine", "b/r.py:Mine"], ["digits"], {})
    with pytest.raises(UserError, match="folder:a/b and folder:a-b would have the same name"):
        list_cells(["cnn"], ["published"], ["folder:a/b", "folder:a-b"], {})


def test_all_are_trained_for_as_long_as_their_recipes_say():
    assert get_preset("affnist").schedule.stop_at_accuracy is not None
    (cell,) = list_cells(["capsnet"], ["published"], ["affnist"], {})
    assert cell.config.schedule.stop_at_accuracy is None
    assert cell.config.schedule.epochs == get_preset("affnist").schedule.epochs


def test_one_recipe_for_all_leaves_each_model_its_own_loss():
    models = ["capsnet", "cnn", "matrix_capsnet"]
    cells = list_cells(models, ["published"], ["mnist"], {"epochs": 2}, "mnist-small")
    small = get_preset("mnist-small").changed(epochs=2)
    for cell in cells:
        config = cell.config
        assert (config.data, config.optimizer, config.schedule) == (
            small.data,
            small.optimizer,
            small.schedule,
        )
    losses = [cell.config.objective.loss for cell in cells]
    assert losses == ["margin", "cross_entropy", "spread"]
    (digits,) = list_cells(["cnn"], ["published"], ["digits"], {}, "mnist-small")
    assert digits.config.data.dataset == "digits"
