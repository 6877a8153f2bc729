"""The command: tables, figures, going on after an interruption, refusals."""

import csv
import json
import re

import pytest

from train.__main__ import main
from train.presets import get_preset
from train.study.compare.cells import list_cells
from train.system.errors import UserError

TINY = ["--steps", "2", "--batch-size", "16", "--robustness-examples", "20"]


def compare(out, *arguments):
    return main(["compare", *TINY, "--out", str(out), *arguments])


def test_tables_and_figures_and_what_is_done_is_kept(tmp_path, capsys):
    out = tmp_path / "compared"
    assert compare(out, "--routings", "uniform", "--seeds", "2") == 0
    printed = capsys.readouterr()
    assert re.search(r"capsnet +uniform +digits +\d+\.\d\d", printed.out)
    assert re.search(r"All 2 seeds at once: .* times as fast", printed.out)
    kept = (out / "cells" / "digits-capsnet-uniform.json").read_bytes()

    # A cell that is not whole counts as missing, and one more is added.
    (out / "cells" / "digits-capsnet-dynamic.json").write_text("{", encoding="utf-8")
    assert compare(out, "--routings", "uniform", "dynamic", "--seeds", "2") == 0
    printed = capsys.readouterr()
    assert "[1/1] digits-capsnet-dynamic" in printed.err
    assert (out / "cells" / "digits-capsnet-uniform.json").read_bytes() == kept

    table = (out / "table.md").read_text(encoding="utf-8")
    assert re.search(r"\| capsnet \| dynamic \| digits \| .* ± ", table)
    assert "can't be told from chance" in table
    rows = list(csv.DictReader((out / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["routing"], row["seed"]) for row in rows] == [
        ("uniform", "0"),
        ("uniform", "1"),
        ("dynamic", "0"),
        ("dynamic", "1"),
    ]
    cells = json.loads((out / "results.json").read_text(encoding="utf-8"))["cells"]
    for row, accuracy in zip(rows, [a for cell in cells for a in cell["accuracy"]], strict=True):
        assert float(row["accuracy"]) == accuracy
    for name in ("accuracy.png", "robustness.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")

    assert compare(out, "--routings", "uniform", "--seeds", "1") == 2
    assert "was measured with seeds [0, 1], now [0]" in capsys.readouterr().err
    assert compare(out, "--routings", "uniform", "--seeds", "1", "--overwrite") == 0
    assert "One seed shows no spread" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "capsnets"], "unknown model 'capsnets', choose from: aff_capsnet"),
        (["--routings", "dynamics"], "unknown routing 'dynamics', choose from: published"),
        (["--datasets", "digit"], "unknown data set 'digit', choose from:"),
        (["--seeds", "0"], "--seeds is 0, but must be more than 0"),
        (["--robustness-examples", "0"], "--robustness-examples is 0, but must be"),
        (["--epochs", "3"], "--steps and --epochs both say how long"),
        (["--routings", "none.py:Mine"], "there is no file none.py"),
        (["--batch-size", "0"], "--batch-size is 0, but must be more than 0"),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_leaves_nothing(arguments, message, tmp_path, capsys):
    assert compare(tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cells_are_all_combinations_each_once():
    cells = list_cells(["capsnet", "cnn"], ["published", "dynamic", "uniform"], ["digits"], {})
    assert [(c.model, c.routing) for c in cells] == [
        ("capsnet", "dynamic"),
        ("capsnet", "uniform"),
        ("cnn", "none"),
    ]
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
