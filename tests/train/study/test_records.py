"""Recorded results, and the tables that are made of them."""

import json

import numpy as np
import pytest

from tests.train.study.compare.test_findings import TWO
from train.__main__ import main
from train.config.fit_config import FitConfig
from train.presets import get_preset
from train.study import records
from train.study.claims import get_claim
from train.study.trial.definition import Arm
from train.study.trial.verdict import Measured
from train.system.errors import UserError


def test_the_tables_of_the_docs_are_those_of_their_files():
    assert not records.outdated(), "run `python -m train results`"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with a page that has a table."""
    monkeypatch.setattr(records, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = "before\n<!-- results: mine -->\nold\n<!-- end of results -->\nafter\n"
    (tmp_path / "README.md").write_text(page)
    return tmp_path


def summary(error: float) -> dict:
    return {
        "preset": "digits",
        "test.error_percent": error,
        "validation.error_percent": 2 * error,
        "test.examples": 359,
        "parameters": 1234,
        "steps": 100,
        "images_per_second": 567.8,
    }


def keep_fit(seed: int, error: float, run: str = "seed", **settings: object) -> None:
    config = {**get_preset("digits").flat(), "seed": seed, **settings}
    values = {"kind": "fit", "config": config, "summary": summary(error)}
    records.keep("mine", f"fit-{run}-{seed}", f"python -m train fit digits --seed {seed}", values)


def test_runs_of_a_recipe_are_one_row(root):
    keep_fit(1, 0.5)
    keep_fit(0, 0.25)
    assert records.render_all() == [root / "README.md"]
    page = (root / "README.md").read_text()
    assert page.startswith(
        "before\n<!-- results: mine -->\n\n`python -m train fit digits --seed 0`\n"
    )
    assert page.endswith("<!-- end of results -->\nafter\n")
    row = "| `digits` | 0, 1 | 0.25, 0.50 | 0.375 ± 0.177 | 0.50, 1.00 | 1,234 | 100 | 568 |"
    assert row in page
    assert "Of 359 test images, by the last checkpoint." in page
    assert "From `docs/results/mine/fit-seed-0.json` and 1 more; " in page
    assert records.render_all() == []
    kept = json.loads((root / "docs" / "results" / "mine" / "fit-seed-1.json").read_text())
    assert kept["command"] == "python -m train fit digits --seed 1"
    assert {"commit", "date", "device_kind", "jax", "python", "cores"} <= kept.keys()


def test_a_recipe_that_is_no_longer_its_presets_says_in_what(root):
    keep_fit(0, 0.25, validation=0)
    assert "| `digits` | 0 |" in records.render("mine")
    keep_fit(0, 0.25, validation=0, epochs=3.0)
    assert "| `digits` `--epochs 3.0` | 0 |" in records.render("mine")


def test_runs_of_other_recipes_are_rows_of_their_own(root):
    for seed in (0, 1):
        keep_fit(seed, 0.25 + seed)
        keep_fit(seed, 0.5 + seed, "fast", learning_rate=0.5, evaluate_every=7)
    page = records.render("mine")
    usual = get_preset("digits").schedule.learning_rate
    row = f"| `digits` `--learning-rate {usual}` | 0, 1 | 0.25, 1.25 | 0.750 ± 0.707 | 0.50, 2.50 |"
    assert row in page
    row = "| `digits` `--learning-rate 0.5` | 0, 1 | 0.50, 1.50 | 1.000 ± 0.707 | 1.00, 3.00 |"
    assert row in page
    assert "`python -m train fit digits --seed 0`, and with the other settings of the table" in page


def test_a_name_is_of_one_kind_and_a_part_of_one_training(root):
    keep_fit(0, 0.25, validation=0)
    config = get_preset("digits").changed(seed=0, validation=0).flat()
    records.require_place("mine", "fit-seed-0", "fit", config)
    records.require_place("mine", "fit-seed-1", "fit", {**config, "seed": 1})
    with pytest.raises(UserError, match="fit-seed-0.json is of a training with --seed 0: choose"):
        records.require_place("mine", "fit-seed-0", "fit", {**config, "seed": 1})
    with pytest.raises(UserError, match="is of what `fit` has recorded: choose another --record"):
        records.require_place("mine", "compare", "compare")


@pytest.mark.parametrize(
    "half",
    ["<!-- results: mine -->\n", "<!-- end of results -->\n", "<!-- results:mine -->\n"],
)
def test_half_a_table_is_told_and_nothing_after_it_is_taken_away(half, root):
    keep_fit(0, 0.25)
    page = (root / "README.md").read_text()
    (root / "README.md").write_text(half + page)
    with pytest.raises(UserError, match=r"README.md has '<!-- .* -->' without its other half"):
        records.render_all()
    assert (root / "README.md").read_text() == half + page


def test_dates_are_those_of_the_parts(root):
    parts = [{**TWO[0], "origin": {"date": "2020-01-02", "device_kind": "abacus", "jax": "0.1"}}]
    values = {"kind": "compare", "cells": [*parts, TWO[1]]}
    records.keep("mine", "compare", "python -m train compare", values)
    assert "compare.json`; 2020-01-02, abacus, JAX 0.1." in records.render("mine")
    values["cells"] = []
    records.keep("mine", "compare", "python -m train compare", values)
    with pytest.raises(UserError, match="holds no result that can be read"):
        records.render("mine")


def test_a_comparison_and_a_claim_are_rendered_from_their_values(root):
    records.keep("mine", "compare", "python -m train compare", {"kind": "compare", "cells": TWO})
    assert "| capsnet | one | digits | 85.00 |" in records.render("mine")

    claim = get_claim("mnist")
    quantity = claim.quantities[0].name
    rng = np.random.default_rng(0)
    arms = [
        Measured(
            Arm(arm.name, FitConfig(), arm.paper),
            {quantity: 100.0 * (rng.random((2, 50)) < 0.1)},
            1234,
            [10, 10],
            5.0,
        )
        for arm in claim.arms("small")
    ]
    values = {"kind": "claims", "claim": "mnist", "budget": "small"}
    values["arms"] = [arm.plain() for arm in arms]
    (root / "docs" / "results" / "mine" / "compare.json").unlink()
    records.keep("mine", "claims", "python -m train claims mnist", values)
    page = records.render("mine")
    mean = float(np.mean(arms[0].of_seeds(quantity)))
    assert f"| CNN | {mean:.2f} ± " in page
    assert page.count("less than") == len(claim.contrasts)


def test_a_table_without_a_result_is_an_error(root, capsys):
    with pytest.raises(UserError, match="there is no result 'mine'"):
        records.render_all()
    keep_fit(0, 0.25)
    assert main(["results", "--check"]) == 2
    assert "README.md differ from docs/results/" in capsys.readouterr().err
    assert main(["results"]) == 0
    assert main(["results", "--check"]) == 0
    (root / "docs" / "results" / "mine" / "fit-seed-0.json").write_text("{}")
    assert main(["results"]) == 2
    assert "holds no result that can be read" in capsys.readouterr().err


def test_a_name_that_is_no_folder_is_refused_before_anything_is_trained(capsys):
    assert main(["fit", "digits", "--record", "../up"]) == 2
    assert "--record is '../up', but must be a name" in capsys.readouterr().err
