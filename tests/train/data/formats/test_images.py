from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.formats.images import is_dark_on_light, read_image
from train.system.errors import UserError


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A white upright bar, left of the middle, on black: 40 wide, 20 high, PNG."""
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, 10:14] = 255
    path = tmp_path / "bar.png"
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_of_the_right_size_is_read_as_it_is(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", (8, 8, 1))[..., 0], pixels)


def test_a_larger_image_keeps_its_proportions_on_black(picture):
    image = read_image(picture, (10, 10, 1))
    assert image.shape == (10, 10, 1)
    assert image.dtype == np.uint8
    assert image[:2].max() == 0  # above and below a picture twice as wide as high
    assert image[-2:].max() == 0
    columns = image[5, :, 0]
    assert 2 <= columns.argmax() <= 3  # the bar stands at 10 to 14 of 40


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.gif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_colour_and_grey_files_serve_grey_and_colour_networks(tmp_path, name, mode):
    Image.new(mode, (30, 30), "white").save(tmp_path / name)
    for channels in (1, 3):
        assert read_image(tmp_path / name, (6, 6, channels)).min() > 250


def test_transparent_pixels_are_black(tmp_path):
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", (8, 8, 1)).max() == 0


def test_an_image_is_turned_upright(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    image = read_image(tmp_path / "x.png", (8, 8, 1))
    assert image[-1].min() == 255
    assert image[0].max() == 0


def test_inverting_swaps_dark_and_light(picture):
    plain = read_image(picture, (20, 40, 1))
    np.testing.assert_array_equal(read_image(picture, (20, 40, 1), invert=True), 255 - plain)
    assert not is_dark_on_light(plain)
    assert is_dark_on_light(255 - plain)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("P", 3)]
)
def test_an_image_as_it_is_has_its_own_size_and_colours(tmp_path, mode, channels):
    Image.new("RGB", (7, 5), "white").convert(mode).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert (image.shape, image.dtype) == ((5, 7, channels), np.uint8)
    assert image.min() == 255


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none.png"):
        read_image(tmp_path / "none.png", (8, 8, 1))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"junk" * 10])
def test_a_file_that_is_no_image_is_told(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=r"x.png (is not an image file|cannot be read)"):
        read_image(tmp_path / "x.png", (8, 8, 1))


def test_an_image_that_is_cut_off_is_told(picture):
    picture.write_bytes(picture.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"bar.png cannot be read as an image"):
        read_image(picture, (8, 8, 1))


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_image(tmp_path, (8, 8, 1))


def test_a_huge_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for name, side in (("large", 8), ("bomb", 11)):
        Image.new("L", (side, side)).save(tmp_path / f"{name}.png")
        with pytest.raises(UserError, match="is too large an image"):
            read_image(tmp_path / f"{name}.png", (8, 8, 1))


def test_a_network_for_other_channels_reads_no_files(picture):
    with pytest.raises(UserError, match="with 2 channels"):
        read_image(picture, (8, 8, 2))
