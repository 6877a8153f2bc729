"""Several networks as one; other tests evaluate a single one, on all kinds of data."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from train.__main__ import main
from train.data import Split, npz
from train.report import evaluate as module
from train.report import loading
from train.report.evaluate import evaluate_ensemble
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
    split = Split(np.zeros((4, 8, 8, 1), np.uint8), LABELS)
    monkeypatch.setattr(module, "load_run", found.__getitem__)
    monkeypatch.setattr(module, "load_split", lambda *_, **__: split)
    monkeypatch.setattr(module, "load_model", lambda run, which: run.folder.name)
    monkeypatch.setattr(module, "lengths_of", lambda model, *_: np.array(LENGTHS[model]))
    return found


def test_the_mean_of_the_lengths_decides(runs):
    """The third image is misjudged by both, each in its own way, and right by their mean."""
    folders = list(runs)
    result = evaluate_ensemble(folders, which="best")
    assert result["accuracies"] == [0.25, 0.5]
    assert result["accuracy"] == 0.75
    assert result["runs"] == [str(folder) for folder in folders]
    assert result["balanced_accuracy"] == (1 + 1 + 0.5) / 3
    assert [row["support"] for row in result["classes"]] == [1, 1, 2]
    (kept,) = (folders[0] / "evaluations").glob("digits-best-2-networks-*.json")
    assert json.loads(kept.read_text()) == result


def test_each_way_to_measure_has_a_file_of_its_own(runs):
    first, second = runs
    layout = npz.Layout("NCHW", "1")
    for folders, options in (
        ([first, second], {}),
        ([first, first], {}),
        ([first, second], {"by_index": True, "layout": layout, "test_examples": 4}),
    ):
        evaluate_ensemble(folders, **options)
    kept = [path.stem for path in (first / "evaluations").iterdir()]
    assert len(kept) == 3
    assert any(name.endswith("-by-index-NCHW-labels-from-1-4-examples") for name in kept)


def test_a_run_that_cannot_be_written_is_measured_all_the_same(digits_run, tmp_path, capsys):
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    shutil.rmtree(run / "figures")
    shutil.rmtree(run / "evaluations", ignore_errors=True)
    for name in ("figures", "evaluations"):
        (run / name).write_text("in the way, as a file system is that is read-only")
    assert main(["evaluate", str(run), "--inspect", "--devices", "1"]) == 0
    out, err = capsys.readouterr()
    assert "balanced accuracy" in out
    assert "class_caps: " in out
    for name in ("figures", "evaluations"):
        assert f"note: {run / name} cannot be written (" in err
    assert "--out" not in err
    assert "shows it" not in err


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_too_little_memory_is_told_without_options_that_are_not_there(
    command, digits_run, tmp_path, capsys, monkeypatch
):
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: Out of memory allocating 1 bytes.")

    monkeypatch.setattr(module, "score", full)
    monkeypatch.setattr("capsjax.pretrained._lengths", full)
    Image.new("L", (8, 8), 9).save(tmp_path / "x.png")
    image = [str(tmp_path / "x.png")] if command == "predict" else []
    assert main([command, str(digits_run), *image]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "does not fit in the memory of the devices: " in told
    assert "--batch-size" not in told


def test_the_class_is_among_as_many_as_are_asked_for(digits_run, capsys):
    command = ["evaluate", str(digits_run), "--devices", "1", "--json"]
    measured = []
    for options in ([], ["--top-k", "2"], ["--top-k", "9"]):
        assert main([*command, *options]) == 0
        measured.append(json.loads(capsys.readouterr().out))
    five, two, nine = measured
    assert five["accuracy"] < two["top_2_accuracy"] < five["top_5_accuracy"]
    assert five["top_5_accuracy"] < nine["top_9_accuracy"] < 1
    assert (digits_run / "evaluations" / "digits-last-top-2.json").exists()
    assert len(five["classes"]) == 10
    supports = np.array([row["support"] for row in five["classes"]])
    recalls = [row["recall"] for row in five["classes"]]
    assert supports @ recalls / supports.sum() == pytest.approx(five["accuracy"])
    assert main([*command, "--top-k", "10"]) == 2
    assert "--top-k is 10, but the network in" in capsys.readouterr().err


def test_images_of_several_classes_have_no_place_among_the_longest(config, tmp_path):
    Run(tmp_path, config, (8, 8, 1), ("a", "b", "c"), labels_per_image=None).save()
    with pytest.raises(UserError, match="--top-k is 2, but images of the run in .* leave it out"):
        module.evaluate(tmp_path, top=2)


def test_networks_of_other_classes_are_refused(runs):
    first, second = runs
    runs[second] = dataclasses.replace(runs[second], class_names=("a", "b", "d"))
    with pytest.raises(UserError, match=r"second has class names .*'d'.* but .*first has"):
        evaluate_ensemble([first, second])
    assert not (first / "evaluations").exists()


@pytest.fixture
def labels_for(config, dataset, tmp_path, monkeypatch):
    """The labels of the test images for a run that has learned some classes."""
    monkeypatch.setattr(loading, "load_dataset", lambda *_, **__: dataset)

    def of(*names, **options):
        run = Run(tmp_path, config, dataset.image_shape, names)
        return loading.load_split(run, "another", None, **options).labels

    return of


def test_classes_are_matched_by_their_names(labels_for, dataset):
    assert dataset.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(labels_for("a", "b", "c"), dataset.test.labels)
    by_name = np.array([2, 0, 1])[dataset.test.labels]
    np.testing.assert_array_equal(labels_for("b", "c", "a"), by_name)
    held = labels_for("b", "c", "a", split="validation")
    np.testing.assert_array_equal(held, np.array([2, 0, 1])[dataset.validation.labels])


def test_where_any_number_of_classes_was_learned_one_that_is_present_is_such_a_number(
    config, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "load_dataset", lambda *_, **__: dataset)
    run = Run(tmp_path, config, dataset.image_shape, ("b", "c", "a"), labels_per_image=None)
    labels = loading.load_split(run, "another", None).labels
    assert labels.dtype == bool
    by_name = np.array([2, 0, 1])[dataset.test.labels]
    np.testing.assert_array_equal(labels, np.arange(3) == by_name[:, None])


def test_images_that_have_changed_since_training_are_told(
    config, dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(loading, "load_dataset", lambda *_, **__: dataset)
    about = (tmp_path, config, dataset.image_shape, dataset.class_names)
    loading.load_split(Run(*about, dataset.fingerprints), config.data.dataset, None)
    loading.load_split(Run(*about), config.data.dataset, None)
    changed = Run(*about, {**dataset.fingerprints, "test": "other"})
    loading.load_split(changed, "another", None)
    assert not capsys.readouterr().err
    loading.load_split(changed, config.data.dataset, None)
    assert "note: the test images of digits are no longer those" in capsys.readouterr().err


def test_classes_of_other_names_are_refused_unless_taken_in_their_order(labels_for, dataset):
    with pytest.raises(
        UserError, match="has the classes b, c where the network in .* has learned the classes x, y"
    ):
        labels_for("x", "a", "y")
    np.testing.assert_array_equal(labels_for("x", "a", "y", by_index=True), dataset.test.labels)
