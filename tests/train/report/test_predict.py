"""`predict`: many files, of which some cannot be read, and what is written of the others."""

import csv
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.tolerance import assert_close
from train.__main__ import main
from train.data import load_dataset
from train.learn.network import build_model
from train.presets import get_preset
from train.report.capsule_file import CapsuleFile
from train.report.loading import load_model
from train.report.predict import BATCH, image_files
from train.report.recording import watched
from train.run.folder import load_run
from train.system.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits").test.images


@pytest.fixture
def photos(tmp_path, digits) -> Path:
    """More images than a batch in two folders, four of them damaged, and files that are none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "__MACOSX").mkdir()
    for number in range(BATCH + 6):
        where = folder / "more" if number % 2 else folder
        Image.fromarray(digits[number, ..., 0]).save(where / f"{number:03}.png")
    for name in ("003.png", "005.png"):
        (folder / "more" / name).write_bytes(b"no image")
    (folder / "000.png").write_bytes((folder / "002.png").read_bytes()[:60])
    (folder / "no suffix").write_text("")
    (folder / "labels.csv").write_text("")
    (folder / ".hidden.png").write_text("")
    (folder / "__MACOSX" / "x.png").write_text("")
    return folder


GOOD = BATCH + 3


def test_all_images_of_a_folder_are_found_and_nothing_else(photos, capsys):
    files = image_files([photos / "002.png", photos])
    inside = [*sorted(photos.glob("0*.png")), *sorted((photos / "more").iterdir())]
    assert files == [photos / "002.png", *inside]
    assert "note: left out, being no images: " in capsys.readouterr().err
    assert image_files([photos / "not there"]) == [photos / "not there"]
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no image files"):
        image_files([photos / "empty"])


def test_bad_files_are_told_at_the_end_and_the_others_are_in_the_table(
    digits_run, photos, capsys, tmp_path
):
    table = tmp_path / "table.csv"
    command = ["predict", str(digits_run), str(photos), str(tmp_path / "none.png")]
    assert main([*command, "--csv", str(table), "--top", "2"]) == 2
    out, err = capsys.readouterr()
    assert out == f"{table}: {GOOD} images\n"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert [line.split(" ")[1] for line in errors] == [
        *(str(photos / name) for name in ("000.png", "more/003.png", "more/005.png")),
        "there",  # is no file
    ]
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "class", "score", "class_2", "score_2"]
    assert len(rows) == GOOD
    assert main([*command[:2], rows[-1]["path"], "--json"]) == 0
    (alone,) = json.loads(capsys.readouterr().out)
    assert alone["class"] == rows[-1]["class"]
    best = sorted(alone["lengths"].values())
    assert float(rows[-1]["score"]) == pytest.approx(best[-1], abs=2e-6)
    assert float(rows[-1]["score_2"]) == pytest.approx(best[-2], abs=2e-6)


def test_capsules_are_kept_as_the_network_makes_them(digits_run, photos, digits, tmp_path):
    kept = tmp_path / "capsules.npz"
    arguments = ["predict", str(digits_run), str(photos), "--save-capsules", str(kept)]
    assert main(arguments) == 2
    with np.load(kept) as file:
        found = dict(file)
    assert [str(path) for path in found["images"][:2]] == [
        str(photos / n) for n in ("002.png", "004.png")
    ]
    assert len(found["images"]) == GOOD
    assert found["classes"].tolist() == list("0123456789")
    run = load_run(digits_run)
    model = load_model(run, "last")
    numbers = [int(Path(name).stem) for name in found["images"]]
    output = model(digits[numbers].astype(np.float32) / 255)
    for name, expected in (
        ("lengths", output.lengths),
        ("class_caps.pose", output.capsules.pose),
        ("class_caps.activation", output.capsules.activation),
        ("class_caps.coupling", output.coupling),
    ):
        assert found[name].dtype == np.float32
        assert_close(found[name], np.asarray(expected), reduction_length=256)
    assert found["primary_caps.pose"].shape == (GOOD, model.primary_caps.num_capsules, 8)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "capsules.npz"}


def test_capsules_in_bfloat16_are_kept_in_float32(tmp_path):
    path, pose = tmp_path / "capsules.npz", np.arange(6).reshape(2, 3).astype(jnp.bfloat16)
    with CapsuleFile(path) as file:
        file.add([Path("a"), Path("b")], {"pose": pose})
        file.keep(["x"])
    with np.load(path) as kept:
        assert kept["pose"].dtype == np.float32
        np.testing.assert_array_equal(kept["pose"], pose.astype(np.float32))


@pytest.mark.parametrize("model", ["matrix_capsnet", "attention_capsnet", "deepcaps", "cnn"])
def test_every_layer_that_routes_is_kept(model):
    config = get_preset(f"digits-{model}" if model != "cnn" else "digits-cnn")
    built = build_model(config, (8, 8, 1), 10)
    built.eval()
    if model == "cnn":
        with pytest.raises(UserError, match="CNN has no layer of routed capsules"):
            watched(built, config)
        return
    found = watched(built, config)(np.zeros((2, 8, 8, 1), np.uint8))
    layers = {name.rpartition(".")[0] for name in found}
    assert "class_caps" in layers
    assert len(layers) > 1
    for name in layers - {"primary_caps"}:
        pose, activation, coupling = (
            found[f"{name}.{what}"] for what in ("pose", "activation", "coupling")
        )
        assert len(pose) == len(coupling) == 2
        assert pose.shape[:-1] == activation.shape
        assert coupling.shape[-1] == activation.shape[-1]


def test_a_file_that_cannot_be_written_is_told_and_none_is_left(
    digits_run, photos, tmp_path, capsys, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for option, name in (("--csv", "table.csv"), ("--save-capsules", "capsules.npz")):
        path = tmp_path / name
        assert main(["predict", str(digits_run), str(photos / "002.png"), option, str(path)]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith(f"error: {path} cannot be written (No space left on device)")
        assert told.endswith(f"choose another {option}.")
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_a_table_and_json_are_not_both_written(digits_run, photos, tmp_path, capsys):
    table = tmp_path / "table.csv"
    words = ["predict", str(digits_run), str(photos / "002.png"), "--csv", str(table), "--json"]
    assert main(words) == 2
    assert f"--csv is {table}, but --json prints the same on stdout" in capsys.readouterr().err
    assert not table.exists()


def test_where_no_file_can_be_read_nothing_is_written(digits_run, photos, tmp_path, capsys):
    table, capsules = tmp_path / "table.csv", tmp_path / "capsules.npz"
    table.write_text("of before")
    arguments = ["--csv", str(table), "--save-capsules", str(capsules)]
    assert main(["predict", str(digits_run), str(photos / "000.png"), *arguments]) == 2
    assert table.read_text() == "of before"
    assert not capsules.exists()


def test_names_that_are_no_text_are_told_all_the_same(digits_run, photos, tmp_path, capsys):
    name = b"caf\xe9 $5\n.png".decode("utf-8", "surrogateescape")
    shutil.copy(photos / "002.png", photos / name)
    table = tmp_path / "table.csv"
    assert main(["predict", str(digits_run), str(photos / name), "--csv", str(table)]) == 0
    assert b"caf\xe9 $5\n.png" in table.read_bytes()
    assert main(["predict", str(digits_run), str(photos / name)]) == 0
    assert "$5" in capsys.readouterr().out
