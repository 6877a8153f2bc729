"""Names of tensors with a place for a number, `decoder.{2n}.weight`, and of parameters.

The name of a parameter, the target of a row, may have the number of a module in a list, and the
number of a part of it: `conv_caps.0.kernel`, `primary_caps.pose.bias[1]`.
"""

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"\{(\d*)([a-z]+)(?:\+(\d+))?\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_IN_A_LIST = re.compile(r"(.+?)\.(\d+|\{n\})\.(.+)")
_PART = re.compile(r"\[(\d+)\]$")


@dataclass(frozen=True)
class Pattern:
    """A name in which one letter stands for a number.

    `{k}` counts 0, 1, 2...; `{2n}` counts 0, 2, 4...; `{n+1}` counts 1, 2, 3... What is in brackets
    is only there in networks with a decoder: `[capsnet.]conv1.weight`. A ValueError if the text has
    more than one number, or braces that are no number.
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
        """The letter of the number, or None."""
        found = _NUMBER.search(self.text)
        return found[2] if found else None

    def name(self, index: int | None, *, decoder: bool) -> str:
        """The name of the tensor with this index, in a network with or without a decoder."""

        def number(found: re.Match) -> str:
            return str(max(1, int(found[1] or 1)) * (index or 0) + int(found[3] or 0))

        return _NUMBER.sub(number, _OPTIONAL.sub(r"\1" if decoder else "", self.text))

    def some_names(self, *, decoder: bool) -> set[str]:
        """The names of its first 100 tensors, or of its only one."""
        indices = range(100) if self.letter else (None,)
        return {self.name(index, decoder=decoder) for index in indices}


def template(target: str) -> str:
    """The name with `{n}` in the place of the number in a list of modules."""
    return _IN_A_LIST.sub(r"\1.{n}.\3", target)


def module_list(target: str) -> str | None:
    """The list of modules that it is in, such as `decoder.layers`; None for others."""
    found = _IN_A_LIST.fullmatch(target)
    return found[1] if found else None


def list_index(target: str) -> int | None:
    """The number in that list; None for others."""
    found = _IN_A_LIST.fullmatch(target)
    return int(found[2]) if found and found[2].isdecimal() else None


def parameter(target: str) -> str:
    """The name of the whole parameter."""
    return _PART.sub("", target)


def part(target: str) -> int:
    """The number of the part of the parameter; 0 for all of it."""
    found = _PART.search(target)
    return int(found[1]) if found else 0
