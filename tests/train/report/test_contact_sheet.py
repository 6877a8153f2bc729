"""Contact sheets."""

import numpy as np
import pytest
from PIL import Image

from train import data
from train.__main__ import main
from train.data import Batch
from train.report import contact_sheet
from train.report.contact_sheet import draw_contact_sheet


def test_each_image_is_there_with_its_classes_and_its_parts_below(pairs):
    batch = pairs.test.gather(np.arange(12))
    figure = draw_contact_sheet(batch, pairs.class_names, "title")
    assert figure.get_suptitle() == "title; below each image its parts"
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 12
    for axes, image, labels, parts in zip(drawn, *batch[:2], batch.parts, strict=True):
        shown = axes.images[0].get_array()
        line = np.full_like(image[:1], 255)  # which parts them
        expected = np.concatenate([image, line, parts[0], line, parts[1]])[..., 0]
        np.testing.assert_array_equal(shown, expected)
        assert axes.get_title() == ", ".join(pairs.class_names[label] for label in labels)


@pytest.mark.parametrize(("channels", "shape"), [(1, (8, 8)), (2, (8, 8)), (3, (8, 8, 3))])
def test_grey_and_coloured_images(channels, shape):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels), dtype=np.uint8)
    figure = draw_contact_sheet(Batch(images, np.arange(3)), ("a", "b", "c"), "title")
    assert figure.axes[0].images[0].get_array().shape == shape


def test_images_of_any_number_of_classes_bear_the_names_of_theirs():
    labels = np.array([[1, 0, 1], [0, 0, 0]], bool)
    batch = Batch(np.zeros((2, 8, 8, 1), np.uint8), labels)
    figure = draw_contact_sheet(batch, ("a", "b", "c"), "title")
    assert [axes.get_title() for axes in figure.axes] == ["a, c", "none"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_with_images_of_a_split(dataset, tmp_path, monkeypatch, capsys, split):
    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: dataset)
    drawn = []
    monkeypatch.setattr(
        contact_sheet,
        "draw_contact_sheet",
        lambda *given: drawn.append(given) or draw_contact_sheet(*given),
    )
    out = tmp_path / "sheet.png"
    assert main(["show", "three", "--out", str(out), "--split", split, "--count", "12"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    ((batch, _, title),) = drawn
    size, whole = {"train": (12, 40), "test": (10, 10)}[split]
    assert title == f"three, {split}: {size} of {whole}"
    np.testing.assert_array_equal(batch.images, getattr(dataset, split).subset(size).images)
    with Image.open(out) as image:
        assert min(image.size) > 100


@pytest.mark.parametrize(
    ("name", "out", "more", "message"),
    [
        ("minst", "sheet.png", (), "no data set 'minst'"),
        ("digits", "sheet.png", ("--count", "0"), "--count is 0: choose 1 to 1000 images."),
        ("digits", "no/sheet.png", ("--count", "1"), "cannot be written"),
        ("digits", "sheet.jpg", (), "a PNG is drawn: name it so, as in sheet.png."),
        ("digits", "sheet.png", ("--split", "dev"), "invalid choice: 'dev'"),
    ],
)
def test_bad_input(tmp_path, capsys, name, out, more, message):
    assert main(["show", name, "--out", str(tmp_path / out), *more]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
