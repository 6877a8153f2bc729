"""Names of tensors with a place for a number: `decoder.{2n}.weight`."""

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"\{(\d*)([a-z]+)(?:\+(\d+))?\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Pattern:
    """A name in which one letter stands for a number.

    `{k}` counts 0, 1, 2...; `{2n}` counts 0, 2, 4...; `{n+1}` counts 1, 2, 3... What is in brackets
    is only there in networks with a decoder: `[capsnet.]conv1.weight`.

    Attributes:
        text: the pattern.

    Raises:
        ValueError: it has more than one number, or braces that are no number.
    """

    text: str

    def __post_init__(self) -> None:
        """Checks the text."""
        numbers = _NUMBER.findall(self.text)
        rest = _OPTIONAL.sub(r"\1", _NUMBER.sub("", self.text))
        if len(numbers) > 1 or not self.text or re.search(r"[\[\]{}\s]", rest):
            raise ValueError(
                f"{self.text!r} is not a name with at most one number in it, such as "
                "'capsules.{k}.weight', 'decoder.{2n}.bias', 'fc{n+1}.bias' or '[net.]conv.bias'"
            )

    @property
    def letter(self) -> str | None:
        """What is counted, or None."""
        found = _NUMBER.search(self.text)
        return found[2] if found else None

    def name(self, index: int | None, *, decoder: bool) -> str:
        """The name of the tensor with this index, in a network with or without a decoder."""
        text = _OPTIONAL.sub(r"\1" if decoder else "", self.text)
        return _NUMBER.sub(
            lambda found: str(_line(found)[0] * (index or 0) + _line(found)[1]), text
        )

    def matches(self, name: str) -> tuple[int | None, bool] | None:
        """The index that the name has, and whether it has what is in brackets; None for others."""
        for decoder in (True, False):
            text = _OPTIONAL.sub(r"\1" if decoder else "", self.text)
            number = _NUMBER.search(text)
            if number is None:
                if name == text:
                    return None, decoder
                continue
            before, after = text[: number.start()], text[number.end() :]
            found = re.fullmatch(rf"{re.escape(before)}(0|[1-9]\d*){re.escape(after)}", name)
            if found is None:
                continue
            factor, offset = _line(number)
            index, rest = divmod(int(found[1]) - offset, factor)
            if rest == 0 and index >= 0:
                return index, decoder
        return None


def _line(number: re.Match) -> tuple[int, int]:
    """Factor and offset of `{2n+1}`."""
    return max(1, int(number[1] or 1)), int(number[3] or 0)
