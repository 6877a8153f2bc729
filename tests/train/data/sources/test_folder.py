"""Image files of the user's own, a folder for each class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.data.small_files import random
from train.data import load_dataset
from train.data.sources import folder
from train.system.errors import UserError


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def fill(where: Path, classes: str = "ab", each: int = 5, shape=(4, 6, 3)) -> None:
    for number, name in enumerate(classes):
        for i in range(each):
            save(where / name / f"{i:02}.png", random(*shape, seed=100 * number + i))


@pytest.mark.parametrize("channels", [1, 3])
def test_train_and_test_as_they_are(tmp_path, channels):
    fill(tmp_path / "train", "zab", each=3, shape=(4, 6, channels))
    fill(tmp_path / "test", "zab", each=1, shape=(4, 6, channels))
    (tmp_path / "train" / "z" / ".DS_Store").write_text("hidden")
    name = f"folder:{tmp_path}"
    dataset = load_dataset(name)
    assert dataset.name == name
    assert dataset.class_names == ("a", "b", "z")
    assert dataset.image_shape == (4, 6, channels)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.test.labels.tolist() == [0, 1, 2]
    for i in range(3):  # "a" was written second
        np.testing.assert_array_equal(dataset.train.images[i], random(4, 6, channels, seed=100 + i))


def test_numbers_are_classes_in_the_order_of_their_values(tmp_path):
    names = ["0", "1", "2", "10", "020", "100", "+3", "1a", "a"]
    for name in names:
        for i in range(3):
            save(tmp_path / name / f"{i}.png", random(4, 6, 3))
    assert load_dataset(f"folder:{tmp_path}").class_names == tuple(names)


def test_what_systems_and_archives_add_is_left_out_and_counted(tmp_path, capsys):
    fill(tmp_path)
    expected = load_dataset(f"folder:{tmp_path}")
    assert not capsys.readouterr().err
    for name in ("README", "a/Thumbs.db", "a/desktop.ini", "b/.DS_Store", "b/readme.txt"):
        (tmp_path / name).write_text("no image")
    save(tmp_path / "__MACOSX" / "a" / "00.png", random(4, 6, 3))
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == ("a", "b")
    np.testing.assert_array_equal(dataset.train.images, expected.train.images)
    np.testing.assert_array_equal(dataset.test.images, expected.test.images)
    sentence = f"note: 6 files in {tmp_path} are left out, which are no images of a class, such as "
    assert capsys.readouterr().err.startswith(sentence)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"notes.txt is not an image file"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_folder_of_images_to_choose_by(tmp_path, name):
    for part, each in (("train", 3), ("test", 1), (name, 2)):
        fill(tmp_path / part, each=each)
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.validation.labels.tolist() == [0, 0, 1, 1]
    assert len(dataset.train) == 6
    fill(tmp_path / name, "c")
    with pytest.raises(UserError, match=rf"train has the classes a, b, but .*{name} has a, b, c"):
        load_dataset(f"folder:{tmp_path}")


def test_a_fifth_of_each_class_is_set_aside_always_the_same(tmp_path):
    fill(tmp_path, each=10)
    dataset = load_dataset(f"folder:{tmp_path}")
    assert np.bincount(dataset.train.labels).tolist() == [8, 8]
    assert np.bincount(dataset.test.labels).tolist() == [2, 2]
    words = np.random.PCG64(0).random_raw(10)
    chosen = sorted(np.argsort(words, kind="stable")[[2, 7]])
    for image, i in zip(dataset.test.images, chosen, strict=False):
        np.testing.assert_array_equal(image, random(4, 6, 3, seed=i))
    seen = {x.tobytes() for x in (*dataset.train.images, *dataset.test.images)}
    assert len(seen) == 20


def test_images_that_differ_name_the_first_and_what_to_say(tmp_path):
    fill(tmp_path)
    save(tmp_path / "b" / "00.png", random(5, 6, 3))
    with pytest.raises(UserError, match=r"b/00.png is 5x6x3 .* but .*a/.*png is 4x6x3: .*@4x6x3"):
        load_dataset(f"folder:{tmp_path}")
    save(tmp_path / "b" / "00.png", random(4, 6, 1))
    with pytest.raises(UserError, match=r"b/00.png is 4x6x1"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("wanted", "shape"), [("@8x6", (8, 6, 3)), ("@3x3x1", (3, 3, 1)), ("@4x6x3", (4, 6, 3))]
)
def test_images_are_made_alike_where_a_shape_is_named(tmp_path, wanted, shape):
    fill(tmp_path)
    save(tmp_path / "b" / "00.png", random(5, 6, 1))
    dataset = load_dataset(f"folder:{tmp_path}{wanted}")
    assert dataset.image_shape == shape
    assert len(dataset.train) + len(dataset.test) == 10


def test_deep_and_drawn_images_are_those_of_8_bits_and_blank_ones_are_told(tmp_path, capsys):
    fill(tmp_path / "grey", shape=(4, 6, 1))
    for file in sorted((tmp_path / "grey").glob("*/*.png")):
        pixels = np.asarray(Image.open(file))
        save(tmp_path / "deep" / file.parent.name / file.name, pixels[..., None] * np.uint16(257))
        ink = np.stack([np.zeros_like(pixels)] * 3 + [255 - pixels], axis=-1)
        save(tmp_path / "drawn" / file.parent.name / file.name, ink)
    grey, deep, drawn = (
        load_dataset(f"folder:{tmp_path / name}@4x6x1") for name in ("grey", "deep", "drawn")
    )
    assert not capsys.readouterr().err
    for other in (deep, drawn):
        np.testing.assert_array_equal(other.train.images, grey.train.images)
        np.testing.assert_array_equal(other.test.images, grey.test.images)
    for number in (0, 3):  # of the training split
        save(tmp_path / "grey" / "b" / f"{number:02}.png", np.zeros((4, 6, 1), np.uint8))
    load_dataset(f"folder:{tmp_path / 'grey'}")
    assert "b/00.png and 1 more came out as one single value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "holds nothing, but must hold a folder of images for each class"),
        (lambda path: save(path / "x.png", random(3, 3, 3)), "holds x.png, but must hold a folder"),
        (lambda path: (path / "a").mkdir(), "a is empty: put the images"),
        (lambda path: fill(path, each=2), "a has 2 images, too few .* make folders train and te"),
        (lambda path: (fill(path), (path / "b" / "note").write_text("")), "note is not an image"),
        (
            lambda path: (fill(path / "train"), fill(path / "test", "ac")),
            "classes a, b, but .*a, c",
        ),
    ],
)
def test_what_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        load_dataset(f"folder:{tmp_path}")


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="none cannot be read .No such file"):
        load_dataset(f"folder:{tmp_path / 'none'}")


def test_images_without_a_pixel_and_more_than_the_memory(tmp_path, monkeypatch):
    fill(tmp_path)
    with pytest.raises(UserError, match="asks for images without a pixel"):
        load_dataset(f"folder:{tmp_path}@0x4")
    monkeypatch.setattr(folder, "physical_bytes", lambda: 10 * 72 - 1)
    with pytest.raises(
        UserError, match="10 images of 4x6x3 take 720 bytes, more than the memory .*@HEIGHTxWIDTH"
    ):
        load_dataset(f"folder:{tmp_path}")
