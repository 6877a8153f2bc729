"""Names that figures have to bear: dollars, bytes that are no text, letters of all the world."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont

from train.system import lettering
from train.system.files import write_figure
from train.system.lettering import give_fonts, plain, plain_names

SCRIPT = "\N{MATHEMATICAL BOLD SCRIPT CAPITAL A}"  # which matplotlib brings in another font
CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"
BYTE = b"caf\xe9".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", ["$1 (US$)", "$x^2$", "$", "$\\frac$", BYTE, "a\nb\t_^{", ""])
def test_any_name_is_drawn_as_it_stands(name, tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.set_title(plain(name))
    axes.set_xticks([0], [plain(name)])
    axes.text(0, 0, plain(name))
    write_figure(tmp_path / "f.png", figure)
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_what_is_no_letter_is_seen_to_be_none():
    assert plain(BYTE) == "caf�"
    assert plain("a\nb\tc\x00") == "a b c�"
    assert plain("$5 and _^") == r"\$5 and _^"


def test_letters_have_the_font_that_has_them(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.set_xticks([0, 1], plain_names((SCRIPT, "b")))
    axes.set_yscale("log")  # whose ticks are formulas
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of letters that it draws as boxes
        write_figure(tmp_path / "f.png", figure)
    families = axes.get_xticklabels()[0].get_fontfamily()
    assert families[-1] not in ("sans-serif", findfont(FontProperties()))
    assert ord(SCRIPT) in lettering._letters(lettering._installed()[families[-1]])


def test_names_without_a_font_are_numbers_which_is_told(monkeypatch, capsys):
    default = findfont(FontProperties())
    monkeypatch.setattr(lettering, "_installed", lambda: {"DejaVu Sans": default})
    assert plain_names(("a", CAT, "$", CAT * 2)) == ("a", "class 1", r"\$", "class 3")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"no font of this machine has the letters of {CAT}, {CAT * 2}: figures show" in told
    assert plain(f"photos of {CAT}") == "photos of �"


def test_what_every_font_has_needs_no_further_one():
    figure = Figure()
    text = figure.text(0, 0, plain("déjà vu"))
    before = text.get_fontfamily()
    give_fonts(figure)
    assert text.get_fontfamily() == before
    np.testing.assert_array_equal(figure.texts, [text])


def test_of_a_long_name_the_beginning_is_drawn():
    assert plain_names(("$" + "a" * 50, "b" * 40)) == (rf"\${'a' * 36}...", "b" * 40)
    assert plain_names(("a" * 50, "b" * 17), 17) == ("a" * 14 + "...", "b" * 17)
