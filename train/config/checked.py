"""A setting of a configuration: its default, its help text, and what values it may have."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from train.system.errors import UserError, did_you_mean

Bound = tuple[str, Callable[[Any], bool]]
"""What a number has to be, in words and as a condition."""

Choices = tuple[str, ...] | Callable[[], tuple[str, ...]] | None

POSITIVE: Bound = ("more than 0", lambda value: value > 0)
NOT_NEGATIVE: Bound = ("0 or more", lambda value: value >= 0)
BETWEEN: Bound = ("more than 0 and less than 1", lambda value: 0 < value < 1)
SHARE: Bound = ("from 0 to 1", lambda value: 0 <= value <= 1)
BELOW_ONE: Bound = ("0 or more and less than 1", lambda value: 0 <= value < 1)


def setting(
    default: Any,
    text: str,
    choices: Choices = None,
    bound: Bound | None = None,
    *,
    also: Callable[[str], bool] | None = None,
    name: str | None = None,
    only_with: tuple[str, tuple[str, ...]] | None = None,
    largest: int = 2**31 - 1,
) -> Any:
    """A field of a configuration, with the help text of its command-line option.

    The default is its value, or what makes it, and is not looked up among the choices: names, or
    what lists them where that takes imports. `also` says whether a name is a choice beside those
    listed; `name` is that among all settings, where it is not the field's own; `only_with` names
    another setting and its values without which this one says nothing; `largest` is what a whole
    number may be: by default what one is on the devices.
    """
    metadata: dict[str, Any] = {"help": text, "choices": choices, "bound": bound}
    metadata |= {"also": also, "name": name, "only_with": only_with, "largest": largest}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def flat_name(field: dataclasses.Field) -> str:
    """The name of a setting among all settings of a run, as its option and messages have it."""
    return field.metadata["name"] or field.name


def flag(name: str) -> str:
    """The command-line option of a setting."""
    return f"--{name.replace('_', '-')}"


def allowed_types(config: type, name: str) -> tuple[type, ...]:
    """The plain types of a field's annotation: `int | None` gives `(int, NoneType)`."""
    annotation = typing.get_type_hints(config)[name]
    members = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    return tuple(typing.get_origin(member) or member for member in members)


class Checked:
    """Settings, each of which is checked when they are made; other fields are groups of them.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # groups are dataclasses
            if field.metadata:
                check(field, getattr(self, field.name))


def listed(choices: Choices) -> tuple[str, ...]:
    """The names among which a setting chooses."""
    return choices() if callable(choices) else choices or ()


def check(field: dataclasses.Field, value: Any) -> None:
    """Checks a value against the choices and the bound of its setting.

    Raises:
        UserError: it is not one that the setting may have.
    """
    name, metadata = flat_name(field), field.metadata
    choices, also = metadata["choices"], metadata["also"]
    is_known = choices is None or value is None or value == field.default
    if not is_known and value not in (choices := listed(choices)) and not (also and also(value)):
        if name == "routing" and str(value).endswith(".py"):
            raise UserError(f"--routing {value} is a file: name what is in it, {value}:NAME.")
        near = did_you_mean(str(value), choices)
        raise UserError(
            f"unknown {name.replace('_', ' ')} {value!r}{near}, choose from: {', '.join(choices)}."
        )
    largest = metadata["largest"]
    if isinstance(value, int) and abs(value) > largest:
        digits = str(value) if abs(value) < 10**20 else f"{str(value)[:10]}..."
        raise UserError(f"{flag(name)} is {digits}, but must be no more than {largest:,}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag(name)} is {value}, but must be a finite number.")
    bound = metadata["bound"]
    if bound and value is not None and not bound[1](value):
        raise UserError(f"{flag(name)} is {value}, but must be {bound[0]}.")
