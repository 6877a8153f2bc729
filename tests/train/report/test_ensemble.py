"""Several networks as one."""

import dataclasses
import json

import numpy as np
import pytest
from train.report.ensemble import evaluate_together

from train.data import Split
from train.report import ensemble
from train.run.folder import Run
from train.system.errors import UserError

LABELS = np.array([0, 1, 2, 2], np.int32)
LENGTHS = {
    "first": [[0.9, 0.1, 0.1], [0.5, 0.4, 0.1], [0.1, 0.6, 0.5], [0.9, 0.1, 0.2]],
    "second": [[0.8, 0.1, 0.1], [0.1, 0.4, 0.2], [0.6, 0.0, 0.5], [0.9, 0.1, 0.2]],
}


@pytest.fixture
def runs(config, tmp_path, monkeypatch):
    """Two runs whose networks give `LENGTHS` for four images, and which are not there otherwise."""
    found = {}
    for name in LENGTHS:
        (tmp_path / name).mkdir()
        found[tmp_path / name] = Run(tmp_path / name, config, (8, 8, 1), ("a", "b", "c"))
    images = np.zeros((4, 8, 8, 1), np.uint8)
    monkeypatch.setattr(ensemble, "load_run", found.__getitem__)
    monkeypatch.setattr(
        ensemble, "test_split", lambda run, name, data_dir, count: Split(images, LABELS)
    )
    monkeypatch.setattr(ensemble, "load_model", lambda run, which: run.folder.name)
    monkeypatch.setattr(
        ensemble, "lengths_of", lambda model, config, images: np.array(LENGTHS[model])
    )
    return found


def test_the_mean_of_the_lengths_decides(runs):
    """The third image is misjudged by both, each in its own way, and right by their mean."""
    folders = list(runs)
    result = evaluate_together(folders, which="best")
    assert result["accuracies"] == [0.25, 0.5]
    assert result["accuracy"] == 0.75
    assert result["runs"] == [str(folder) for folder in folders]
    kept = json.loads((folders[0] / "evaluations" / "digits-best-2-networks.json").read_text())
    assert kept == result


def test_networks_of_other_classes_are_refused(runs):
    first, second = runs
    runs[second] = dataclasses.replace(runs[second], class_names=("a", "b", "d"))
    with pytest.raises(UserError, match=r"second has class names .*'d'.* but .*first has"):
        evaluate_together([first, second])
    assert not (first / "evaluations").exists()
