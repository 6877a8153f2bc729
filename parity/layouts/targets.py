"""Names of parameters, and of parts of them: `conv_caps.0.kernel`, `primary_caps.pose.bias[1]`."""

import re

_IN_A_LIST = re.compile(r"(.+?)\.(\d+|\{n\})\.(.+)")
_PART = re.compile(r"\[(\d+)\]$")


def template(target: str) -> str:
    """The name with `{n}` in the place of the number in a list of modules."""
    return _IN_A_LIST.sub(r"\1.{n}.\3", target)


def module_list(target: str) -> str | None:
    """The list of modules that it is in, such as `decoder.layers`; None for others."""
    found = _IN_A_LIST.fullmatch(target)
    return found[1] if found else None


def number(target: str) -> int | None:
    """The number in that list; None for others."""
    found = _IN_A_LIST.fullmatch(target)
    return int(found[2]) if found and found[2].isdecimal() else None


def parameter(target: str) -> str:
    """The name of the whole parameter."""
    return _PART.sub("", target)


def part(target: str) -> int:
    """Which part of the parameter it is; 0 for all of it."""
    found = _PART.search(target)
    return int(found[1]) if found else 0


def module(target: str) -> str:
    """The module that has the parameter."""
    return target.rpartition(".")[0]
