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
