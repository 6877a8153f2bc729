"""Image files of the user's own, a folder for each class."""

import pickle
import re
import shutil
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.data.small_files import random
from train.data import Dataset, load_dataset, on_disk
from train.system.errors import UserError


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def fill(
    where: Path, classes: Iterable[str] = "ab", each: int = 5, shape=(4, 6, 3), seed: int = 0
) -> None:
    for number, name in enumerate(classes):
        for i in range(each):
            save(where / name / f"{i:02}.png", random(*shape, seed=seed + 100 * number + i))


def read(where: object) -> Dataset:
    """All images, which are in files at first."""
    return load_dataset(f"folder:{where}").in_memory()


@pytest.mark.parametrize("channels", [1, 3])
def test_train_and_test_as_they_are(tmp_path, channels):
    fill(tmp_path / "train", "zab", each=3, shape=(4, 6, channels))
    fill(tmp_path / "test", "zab", each=1, shape=(4, 6, channels))
    (tmp_path / "train" / "z" / ".DS_Store").write_text("hidden")
    name = f"folder:{tmp_path}"
    dataset = load_dataset(name).in_memory()
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
    assert read(tmp_path).class_names == tuple(names)


def test_what_systems_and_archives_add_is_left_out_and_counted(tmp_path, capsys):
    fill(tmp_path)
    expected = read(tmp_path)
    assert "left out" not in capsys.readouterr().err
    for name in ("README", "a/Thumbs.db", "a/desktop.ini", "b/.DS_Store", "b/readme.txt"):
        (tmp_path / name).write_text("no image")
    save(tmp_path / "__MACOSX" / "a" / "00.png", random(4, 6, 3))
    dataset = read(tmp_path)
    assert dataset.class_names == ("a", "b")
    np.testing.assert_array_equal(dataset.train.images, expected.train.images)
    np.testing.assert_array_equal(dataset.test.images, expected.test.images)
    sentence = (
        f"note: files in {tmp_path} that are left out, being no images of a class: 6, such as "
    )
    assert sentence in capsys.readouterr().err
    (tmp_path / "b" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"notes.txt is not an image file"):
        read(tmp_path)
    for number in range(6):  # all of them at once, not one after each attempt
        (tmp_path / "b" / f"{number}.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"0.jpg is not .*/4.jpg is not .* There are 2 more.$"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "Validation", "Testing"), ("train", "valid", None)],
)
def test_folders_of_splits(tmp_path, capsys, train, validation, test):
    parts = {train: 9, validation: 2, test: 1}
    for part, each in parts.items():
        if part is not None:
            fill(tmp_path / part, each=each)
    dataset = read(tmp_path)
    assert dataset.class_names == ("a", "b")
    assert dataset.validation.labels.tolist() == [0, 0, 1, 1]
    told = "has no folder `test`: about a fifth of" in capsys.readouterr().err
    assert told == (test is None)
    of_test = len(dataset.test)
    assert len(dataset.train) == (18 if test else 18 - of_test)
    assert of_test == 2 if test else of_test >= 2
    fill(tmp_path / validation, "c")
    with pytest.raises(
        UserError, match=rf"{validation} has the classes c, which .*{train} has not"
    ):
        read(tmp_path)
    fill(tmp_path / "VAL", "ab")
    if validation != "VAL":
        with pytest.raises(UserError, match="are both folders of validation images"):
            read(tmp_path)


def test_of_classes_alone_a_fifth_is_the_test_and_that_is_told(tmp_path, capsys):
    fill(tmp_path, each=9)
    read(tmp_path)
    told = f"{tmp_path} has no folder `test`: about a fifth of the images in {tmp_path} are"
    assert told in capsys.readouterr().err


def test_a_link_to_nothing_is_told(tmp_path):
    fill(tmp_path, each=9)
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"b/gone.png cannot be read \(No such file.* class b\."):
        read(tmp_path)


def test_what_lies_beside_the_parts_is_named(tmp_path, capsys):
    for number, part in enumerate(("train", "dev", "test")):
        fill(tmp_path / part, seed=1000 * number)
    assert read(tmp_path).validation is not None
    assert capsys.readouterr().err == ""
    fill(tmp_path / "unlabelled")
    (tmp_path / "labels.csv").write_text("")
    read(tmp_path)
    told = "what .* holds beside train, validation, test is left out: labels.csv, unlabelled"
    assert re.search(told, capsys.readouterr().err)


def test_a_class_of_vehicles_is_no_split(tmp_path):
    for name in ("car", "train"):
        fill(tmp_path / "vehicles", [name])
    assert read(tmp_path / "vehicles").class_names == ("car", "train")


def test_no_image_changes_sides_when_others_come(tmp_path):
    fill(tmp_path, each=200, shape=(1, 2, 1))
    before = read(tmp_path)
    sizes = np.bincount(before.test.labels)
    assert all(20 < size < 60 for size in sizes)  # 40 on average, of as many draws
    for name in ("0.png", "zz.png", "100a.png", "é.png"):
        save(tmp_path / "a" / name, random(1, 2, 1, seed=1000))
    after = read(tmp_path)

    def seen(split):
        return {
            (label, image.tobytes())
            for label, image in zip(split.labels, split.images, strict=True)
        }

    assert seen(before.train) - seen(before.test) <= seen(after.train)
    assert seen(before.test) <= seen(after.test)
    assert len(after.train) + len(after.test) == 404


def test_names_are_the_same_however_accents_are_written(tmp_path):
    found = []
    for form in ("NFC", "NFD"):
        summer, winter = (unicodedata.normalize(form, name) for name in ("été", "hiver"))
        for name in (summer, winter):
            for i in range(9):
                save(tmp_path / form / name / f"{summer}{i}.png", random(4, 6, 3, seed=i))
        found.append(load_dataset(f"folder:{tmp_path / form}"))
    one, other = found
    assert one.class_names == other.class_names == ("hiver", "été")
    assert one.fingerprints == other.fingerprints


def test_each_class_of_a_few_images_has_one_on_each_side(tmp_path):
    fill(tmp_path, "abcdefgh", each=3, shape=(1, 2, 1))
    for number, folder in enumerate(sorted(tmp_path.iterdir())):
        for file in folder.iterdir():
            file.rename(folder / f"{number}-{file.name}")
    dataset = read(tmp_path)
    for split in (dataset.train, dataset.test):
        assert set(split.labels) == set(range(8))


def test_home_and_a_slash_at_the_end(tmp_path, monkeypatch):
    fill(tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("folder:~/photos", "folder:~/photos/", f"folder:{tmp_path}/photos/"):
        assert load_dataset(name).class_names == ("a", "b")


def test_files_are_read_when_they_are_asked_for(tmp_path):
    fill(tmp_path, each=9)
    whole = read(tmp_path)
    dataset = load_dataset(f"folder:{tmp_path}")
    places = np.array([7, 0, 3])
    batch = dataset.train.gather(places)
    np.testing.assert_array_equal(batch.images, whole.train.images[places])
    assert batch.labels.tolist() == whole.train.labels[places].tolist()
    moved = pickle.loads(pickle.dumps(dataset.train.take(places)))
    np.testing.assert_array_equal(moved.gather(np.arange(3)).images, batch.images)
    assert moved.fingerprint != dataset.train.fingerprint
    (tmp_path / "a" / "04.png").write_bytes(b"no image")
    load_dataset(f"folder:{tmp_path}").train.gather(places[:1])
    with pytest.raises(UserError, match=r"a/04.png is not an image file"):
        read(tmp_path)


def test_the_fingerprint_follows_the_files_and_not_their_place(tmp_path):
    fill(tmp_path / "one" / "photos", each=9)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (load_dataset(f"folder:{tmp_path / n / 'photos'}") for n in ("one", "two"))
    assert one.fingerprints == two.fingerprints
    save(tmp_path / "two" / "photos" / "b" / "more.png", random(4, 6, 3))
    assert load_dataset(f"folder:{tmp_path / 'two' / 'photos'}").fingerprints != one.fingerprints


def test_another_image_of_the_same_name_and_size_has_another_fingerprint(tmp_path):
    def fingerprint() -> str:
        return load_dataset(f"folder:{tmp_path}").train.fingerprint

    fill(tmp_path / "train", each=2)
    fill(tmp_path / "test", each=1)
    path, image = tmp_path / "train" / "b" / "01.bmp", random(4, 6, 3)
    save(path, image)
    before = fingerprint()
    save(path, 255 - image)
    assert fingerprint() != before
    save(path, image)
    assert fingerprint() == before


def test_images_that_differ_name_the_first_and_what_to_say(tmp_path):
    fill(tmp_path)
    save(tmp_path / "b" / "00.png", random(5, 6, 3))
    with pytest.raises(UserError, match=r"b/00.png is 5x6x3 .* but .*a/.*png is 4x6x3: .*@4x6x3"):
        read(tmp_path)
    save(tmp_path / "b" / "00.png", random(4, 6, 1))
    with pytest.raises(UserError, match=r"b/00.png is 4x6x1"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "shape"), [("@8x6", (8, 6, 3)), ("@3x3x1", (3, 3, 1)), ("@4x6x3", (4, 6, 3))]
)
def test_images_are_made_alike_where_a_shape_is_named(tmp_path, wanted, shape):
    fill(tmp_path)
    save(tmp_path / "b" / "00.png", random(5, 6, 1))
    dataset = read(f"{tmp_path}{wanted}")
    assert dataset.image_shape == shape
    assert len(dataset.train) + len(dataset.test) == 10


def test_deep_and_drawn_images_are_those_of_8_bits_and_blank_ones_are_told(tmp_path, capsys):
    fill(tmp_path / "grey", shape=(4, 6, 1))
    for file in sorted((tmp_path / "grey").glob("*/*.png")):
        pixels = np.asarray(Image.open(file))
        save(tmp_path / "deep" / file.parent.name / file.name, pixels[..., None] * np.uint16(257))
        ink = np.stack([np.zeros_like(pixels)] * 3 + [255 - pixels], axis=-1)
        save(tmp_path / "drawn" / file.parent.name / file.name, ink)
    grey, deep, drawn = (read(f"{tmp_path / name}@4x6x1") for name in ("grey", "deep", "drawn"))
    assert "came out" not in capsys.readouterr().err
    for other in (deep, drawn):
        np.testing.assert_array_equal(other.train.images, grey.train.images)
        np.testing.assert_array_equal(other.test.images, grey.test.images)
    for number in (0, 1):  # of the training split
        save(tmp_path / "grey" / "b" / f"{number:02}.png", np.zeros((4, 6, 1), np.uint8))
    read(tmp_path / "grey")
    told = capsys.readouterr().err
    assert "b/00.png and 1 more came out as one single value" in told
    assert "almost black" not in told
    for number in range(10):
        save(tmp_path / "dark" / "ab"[number % 2] / f"{number}.png", random(4, 6, 3) // 16)
    read(tmp_path / "dark")
    assert "and the other images of its split is above 15, where" in capsys.readouterr().err


def test_copies_between_train_and_test_are_told(tmp_path, capsys):
    for split, seed in (("train", 0), ("test", 1)):
        for number in range(4):
            image = random(4, 6, 3, seed=10 * seed + number)
            save(tmp_path / split / "ab"[number % 2] / f"{number}.png", image)
    save(tmp_path / "test" / "a" / "copy.bmp", random(4, 6, 3, seed=1))
    read(tmp_path)
    told = capsys.readouterr().err
    assert "note: test images that are training images, too: 1 of 5;" in told


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "holds nothing, but must hold a folder of images for each class"),
        (lambda path: save(path / "x.png", random(3, 3, 3)), "holds x.png, but must hold a folder"),
        (lambda path: (path / "a").mkdir(), "a is empty: put the images"),
        (
            lambda path: [save(path / "data" / c / "1.png", random(3, 3, 3)) for c in "abc"],
            "data/a is a folder, where the images of the class data should be: name the folder in",
        ),
        (lambda path: fill(path, each=2), "a has 2 images, too few .* make folders train and te"),
        (lambda path: (fill(path), (path / "b" / "note").write_text("")), "note is not an image"),
        (
            lambda path: (fill(path / "train"), fill(path / "test", "ac")),
            "train has the classes b, which .*test has not: make them the same",
        ),
        (
            lambda path: [fill(path / form) for form in ("cafe\u0301", "caf\u00e9")],
            "has two folders caf.*, whose names are the same letters written in two ways",
        ),
    ],
)
def test_what_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="none cannot be read .No such file"):
        read(tmp_path / "none")


def test_images_without_a_pixel_and_more_than_the_memory(tmp_path, monkeypatch):
    fill(tmp_path)
    with pytest.raises(UserError, match="asks for images without a pixel"):
        load_dataset(f"folder:{tmp_path}@0x4")
    monkeypatch.setattr(on_disk, "physical_bytes", lambda: 80)
    with pytest.raises(
        UserError,
        match=r"6 images of 4x6x3 take 456 bytes, more than the memory .*@HEIGHTxWIDTH.*--feed str",
    ):
        read(tmp_path)


def test_reading_in_threads_leaves_the_warnings_of_the_process_as_they_are(tmp_path):
    fill(tmp_path, each=40)
    before = warnings.filters[:]
    read(tmp_path)
    assert warnings.filters == before
