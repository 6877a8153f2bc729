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
