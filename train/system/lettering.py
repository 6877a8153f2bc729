"""Names of any kind in figures: none is taken for a formula, and each letter has its font."""

import functools
import sys

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""In the place of what is no letter, or has no font: a byte of a name that is not UTF-8."""

LONGEST = 40
"""Letters of the name of a class; of a longer one these are drawn."""

_BOXES = "last resort"
"""What the name of a font begins with that has a box for every letter."""


def plain(text: str) -> str:
    """A text to be drawn by matplotlib as it stands, dollars and all."""
    readable = "".join(" " if c.isspace() else c if c.isprintable() else UNKNOWN for c in text)
    missing = _without_font(readable)
    drawn = "".join(UNKNOWN if ord(c) in missing else c for c in readable)
    return drawn.replace("$", r"\$")


@functools.cache
def plain_names(names: tuple[str, ...], longest: int = LONGEST) -> tuple[str, ...]:
    """The names of classes, to be drawn by matplotlib as they stand; the beginning of long ones.

    One with a letter that no font here has is its number instead, which is told on stderr.
    """
    missing = [name for name in names if _without_font(name)]
    if missing:
        others = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        print(
            f"note: no font of this machine has the letters of {', '.join(missing[:3])}{others}: "
            "figures show the numbers of these classes, until a font that has them is installed, "
            "such as Noto Sans CJK",
            file=sys.stderr,
        )
    return tuple(
        f"class {number}" if name in missing else plain(_beginning(name, longest))
        for number, name in enumerate(names)
    )


def give_fonts(figure: Figure) -> None:
    """Gives the texts of a figure fonts for the letters which their own font lacks."""
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    fonts = _further_fonts("".join(text.get_text() for text in texts))
    if fonts:
        for text in texts:
            text.set_fontfamily([*text.get_fontfamily(), *fonts])


def _beginning(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 3] + "..."


def _without_font(text: str) -> set[int]:
    """The letters of a text that no font has."""
    letters = _beyond_default(text)
    return letters - set().union(*map(_letters, _installed().values())) if letters else letters


def _further_fonts(text: str) -> list[str]:
    """Fonts that have the letters of a text which the default one lacks, few of them."""
    letters, chosen = _beyond_default(text), []
    while letters:
        best = max(_installed(), key=lambda font: len(letters & _letters(_installed()[font])))
        found = letters & _letters(_installed()[best])
        if not found:
            break
        chosen.append(best)
        letters -= found
    return chosen


def _beyond_default(text: str) -> set[int]:
    wanted = {ord(c) for c in text if c.isprintable()}
    return wanted - _letters(findfont(FontProperties()))


@functools.cache
def _installed() -> dict[str, str]:
    """The files of upright fonts of normal weight, by the name of the font."""
    upright = (
        font
        for font in fontManager.ttflist
        if (font.style, font.stretch) == ("normal", "normal") and font.weight in (400, "normal")
    )
    named = {font.name: font.fname for font in upright}
    return {name: named[name] for name in sorted(named) if not name.lower().startswith(_BOXES)}


@functools.cache
def _letters(file: str) -> frozenset[int]:
    """The letters that a font has; none of one that cannot be read."""
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
