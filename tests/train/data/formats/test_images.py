import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.formats.images import (
    is_blank,
    is_dark_on_light,
    read_image,
    read_picture,
    tell_of_blank,
)
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


@pytest.mark.parametrize("size", [(400, 3), (3, 400)])
def test_of_an_image_that_is_very_long_a_line_is_left(tmp_path, size):
    Image.new("L", size, 200).save(tmp_path / "long.png")
    image = read_image(tmp_path / "long.png", (8, 8, 1))[..., 0]
    image = image if size[0] > size[1] else image.T
    assert image[4].tolist() == [200] * 8
    assert np.count_nonzero(image) == 8


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.gif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_colour_and_grey_files_serve_grey_and_colour_networks(tmp_path, name, mode):
    Image.new(mode, (30, 30), "white").save(tmp_path / name)
    for channels in (1, 3):
        assert read_image(tmp_path / name, (6, 6, channels)).min() > 250


def test_transparent_pixels_are_black(tmp_path):
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", (8, 8, 1)).max() == 0


RAMP = np.array([[0, 1, 2, 100], [127, 128, 254, 255]], np.uint8)
IN_16_BITS = RAMP.astype(np.uint16) * 257


def ramp_to(largest: int, dtype: str) -> np.ndarray:
    return np.rint(RAMP / 255 * largest).astype(dtype)


def tiff(values: np.ndarray, sample_format: int, photometric: int = 1) -> bytes:
    """A grey TIFF of integers of any kind, of which Pillow writes a few alone."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: photometric, 277: 1}
    tags |= {278: height, 279: values.nbytes, 339: sample_format}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4  # where pixels begin
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + values.tobytes()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x.png", IN_16_BITS),
        ("x.tif", IN_16_BITS),
        ("x.tif", IN_16_BITS.astype(">u2")),
        ("x.pgm", IN_16_BITS),
        ("x.tif", RAMP.astype(np.int32)),
        ("x.tif", IN_16_BITS.astype(np.int32)),
        ("x.tif", ramp_to(2**31 - 1, "int32")),
        ("x.tif", RAMP / np.float32(255)),
        ("x.tif", RAMP.astype(np.float32)),
        ("x.tif", RAMP * np.float32(257)),
        ("unsigned", tiff(ramp_to(2**32 - 1, "uint32"), 1)),
        ("signed", tiff(ramp_to(2**31 - 1, "int32"), 2)),
        ("signed", tiff(ramp_to(2**15 - 1, "int16"), 2)),
        ("white-is-zero", tiff(IN_16_BITS ^ np.uint16(0xFFFF), 1, photometric=0)),
        ("white-is-zero", tiff(RAMP ^ np.uint8(0xFF), 1, photometric=0)),
    ],
)
def test_what_is_deeper_than_8_bits_is_scaled_by_its_range(tmp_path, name, values):
    if isinstance(values, bytes):
        (tmp_path / name).write_bytes(values)
    else:
        Image.fromarray(values).save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.shape == (2, 4, 1)
    np.testing.assert_array_equal(read[..., 0], RAMP)
    np.testing.assert_array_equal(read_image(tmp_path / name, (2, 4, 3))[..., 1], RAMP)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "message"),
    [
        (-1, 5, "float32", "from -1 to 5, but .* from 0 to 1 or 255 or 65535: save it in"),
        (0, 70_000, "float32", "from 0 to 70000"),
        (0, np.nan, "float32", "from nan to nan"),
        (-7, 255, "int32", "from -7 to 255, but .* from 0 to 255 or 65535 or 2147483647"),
    ],
)
def test_values_without_a_range_are_told(tmp_path, low, high, dtype, message):
    Image.fromarray(np.array([[low, high]], dtype)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=rf"x\.tif has values {message}"):
        read_image(tmp_path / "x.tif")


def test_a_deep_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(IN_16_BITS).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png")[..., 0], RAMP[::-1, ::-1])


@pytest.mark.parametrize("ink", [0, 30, 225, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_ink_that_alpha_alone_draws_is_seen(tmp_path, ink, mode):
    drawn = Image.new("L", (4, 2), ink)
    drawn.putalpha(Image.fromarray(RAMP))
    drawn.convert(mode).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png", (2, 4, 1))[..., 0].astype(int)
    ground = 0 if ink > 127 else 255
    np.testing.assert_allclose(image, ground + (ink - ground) * (RAMP / 255), atol=1)
    inverted = read_image(tmp_path / "x.png", (2, 4, 1), invert=True)[..., 0]
    np.testing.assert_array_equal(inverted, 255 - image)


def test_a_picture_that_shows_as_much_on_black_stays_on_black(tmp_path):
    picture = Image.fromarray(RAMP[:, 1:7] // 2 + 60).convert("RGB")
    picture.putalpha(Image.fromarray(np.array([[0, 255, 255], [255, 255, 255]], np.uint8)))
    picture.save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0, 0].tolist() == [0, 0, 0]


def test_pictures_of_one_value_are_told_and_read(tmp_path, capsys):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path, value in zip(paths, (0, 255, None), strict=True):
        Image.fromarray(RAMP if value is None else np.full_like(RAMP, value)).save(path)
    images = [read_image(path, (2, 4, 1)) for path in paths]
    assert [image[0, 0, 0] for image in images] == [0, 255, 0]
    blank = [path for path, image in zip(paths, images, strict=True) if is_blank(image)]
    tell_of_blank(blank)
    assert "b.png" not in (told := capsys.readouterr().err)
    assert re.fullmatch(r"note: .*a\.png and 1 more came out as one single value .*\n", told)
    tell_of_blank(blank[1:])
    assert re.match(r"note: .*b\.png came out as", capsys.readouterr().err)
    tell_of_blank(blank[2:])
    assert not capsys.readouterr().err


def test_an_image_is_turned_upright(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    image = read_image(tmp_path / "x.png", (8, 8, 1))
    assert image[-1].min() == 255
    assert image[0].max() == 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(5, RAMP.T), (6, RAMP[::-1].T), (7, RAMP[::-1, ::-1].T), (8, RAMP[:, ::-1].T)],
)
def test_a_tiff_that_is_longer_than_wide_is_turned_by_a_quarter(
    tmp_path, dtype, orientation, expected
):
    values = RAMP if dtype == "uint8" else IN_16_BITS
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={274: orientation})
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif")[..., 0], expected)


def test_a_dark_map_of_16_bits_has_the_range_of_its_kind(tmp_path):
    Image.fromarray(np.array([[0, 200], [257, 514]], np.uint16)).save(tmp_path / "x.pgm")
    assert read_image(tmp_path / "x.pgm")[..., 0].tolist() == [[0, 1], [1, 2]]


def test_what_an_image_shows_is_seen_before_it_is_centred_on_black(tmp_path):
    page = np.full((8, 5, 3), 255, np.uint8)
    page[2:5, 2] = 0
    Image.fromarray(page).save(tmp_path / "page.png")
    page = read_picture(tmp_path / "page.png", (8, 8, 1))
    assert (page.is_blank, page.is_dark_on_light) == (False, True)
    assert page.pixels[:, 0].max() == 0
    inverted = read_picture(tmp_path / "page.png", (8, 8, 1), invert=True)
    assert (inverted.is_blank, inverted.is_dark_on_light) == (False, False)
    Image.new("RGB", (5, 8), (200, 3, 40)).save(tmp_path / "red.png")
    assert read_picture(tmp_path / "red.png", (8, 8, 3)).is_blank


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
