"""A command as a typed dataclass, and the command line that is made of it, all in one place."""

import argparse
import contextlib
import dataclasses
import functools
import io
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn

from train.config.checked import flag
from train.options.values import Gather, reader
from train.system.environment import explained, require_environment
from train.system.errors import CommandError, PreemptedError, UserError, did_you_mean
from train.system.printing import printed

Text = str | Callable[[], str]
"""A help text, or what makes it: for one that needs imports which take a second."""

_CHOSEN, _SETTING = "chosen command", "setting:"
"""What argparse calls the name of the command, and what its names of settings begin with."""


@dataclass(kw_only=True)
class Command:
    """A command: its fields are its options, its docstring is its help.

    The name of the class, in lower case with hyphens, is that of the command; the first line of
    the docstring says what it is for, the rest what it does. A field made by `argument`, `option`
    or `settings` is on the command line, in this order; any other is not.

    Attributes:
        arguments: the words that followed the program's name.
    """

    epilog: ClassVar[Text] = ""
    arguments: Sequence[str] = ()

    def run(self) -> int:
        """Does it; returns the exit code."""
        raise NotImplementedError


def argument(
    help: Text, *, metavar: str, many: bool = False, rest: bool = False, **default: Any
) -> Any:
    """A field that is an argument without a name, for which the help has `metavar`.

    It is a list of one or more if `many`, and of all that is left of the line if `rest`; one that
    may be left out has a default, such as `default=None`.
    """
    number = "+" if many else argparse.REMAINDER if rest else "?" if default else None
    metadata = {"help": help, "metavar": metavar, "nargs": number, "kind": "argument"}
    return dataclasses.field(**default, metadata=metadata)


def option(
    default: Any,
    help: Text,
    *,
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
    group: str | None = None,
    instead: str | None = None,
) -> Any:
    """A field that is an option: `--name`, its value by the field's type.

    A bool is a switch, a Literal a choice, a list takes several words. A default is told in the
    help; it is `...` for an option that has to be given. `parse` makes the value of a word, as
    `type` does for argparse; options with the same word in `instead` exclude each other.
    """
    metadata: dict[str, Any] = {"help": help, "metavar": metavar, "parse": parse, "group": group}
    metadata |= {"instead": instead, "required": default is ..., "kind": "option"}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=None if default is ... else default, metadata=metadata)


def settings(leave_out: Sequence[str] = ()) -> Any:
    """The field `settings`, which holds the settings of a run that were given by their flat names.

    Those to leave out are no options.
    """
    return dataclasses.field(
        default_factory=dict, metadata={"leave_out": leave_out, "kind": "settings"}
    )


def command_name(command: type[Command]) -> str:
    """What a command is called: of `GpuReport`, `gpu-report`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", command.__name__).lower()


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises `UserError` instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help explains.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # As argparse does, with the nearest name.
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action,
                f"invalid choice: {value!r}{did_you_mean(str(value), choices)} (choose from "
                f"{', '.join(choices)})",
            )


def parse(
    program: str, description: str, commands: Sequence[type[Command]], arguments: Sequence[str]
) -> Command:
    """The command that a line, of the program and arguments, asks for, with its options.

    Raises:
        UserError: on an unknown command or option, or a value of the wrong form.
        SystemExit: after `--help`.
    """
    parser = _Parser(
        prog=program,
        description=description,
        epilog=f"`{program} COMMAND --help` explains a command.",
        allow_abbrev=False,
    )
    named = {command_name(command): command for command in commands}
    parsers = parser.add_subparsers(dest=_CHOSEN, metavar="COMMAND", required=True)
    known: list[str] = []
    explained = not {"-h", "--help"}.isdisjoint(arguments)
    for name, command in named.items():
        summary, _, text = (command.__doc__ or "").partition("\n")
        chosen = tuple(arguments[:1]) == (name,)
        own = parsers.add_parser(
            name,
            help=summary.rstrip(".").lower()[:1] + summary.rstrip(".")[1:],
            description=" ".join(text.split()) or summary,
            epilog=_text(command.epilog) if chosen and explained else "",
            allow_abbrev=False,
            usage=f"{program} {name}{''.join(_usage(command))} [OPTION ...]",
        )
        if chosen:  # the others' options would cost imports
            known = _add_options(own, command, explained)
    found, unknown = parser.parse_known_args(list(arguments))
    values = vars(found)
    name = values.pop(_CHOSEN)
    if unknown:
        word = unknown[0].partition("=")[0]
        raise UserError(
            f"unknown argument {word!r}{did_you_mean(word, known)}; the options of {name} are "
            f"{', '.join(sorted(known))}."
        )
    given = {k: values.pop(k) for k in list(values) if k.startswith(_SETTING)}
    if given:
        values["settings"] = {
            k.removeprefix(_SETTING): value for k, value in given.items() if value is not None
        }
    return named[name](arguments=tuple(arguments), **values)


def _usage(command: type[Command]) -> Iterator[str]:
    """The arguments of a command, as its usage has them."""
    for field in dataclasses.fields(command):
        about = field.metadata
        if about.get("kind") == "argument":
            word = about["metavar"] + (" ..." if about["nargs"] == "+" else "")
            yield f" {word}" if field.default is dataclasses.MISSING else f" [{word}]"


def _text(text: Text) -> str:
    return text if isinstance(text, str) else text()


def _add_options(
    parser: argparse.ArgumentParser, command: type[Command], explained: bool
) -> list[str]:
    """Adds the fields of a command to a parser; returns the names of its options.

    They are explained if that is asked for: it may cost imports that take a second.
    """
    group = functools.cache(parser.add_argument_group)
    alternatives = functools.cache(lambda word, of: of.add_mutually_exclusive_group())
    types_of = typing.get_type_hints(command)
    names = ["--help"]
    # Arguments in their order; of the options, those of this command alone before the others.
    own = command.__annotations__
    for field in sorted(
        dataclasses.fields(command),
        key=lambda field: field.metadata.get("kind") == "option" and field.name not in own,
    ):
        about = field.metadata
        if about.get("kind") == "argument":
            parser.add_argument(field.name, **_form(field, types_of[field.name], explained))
        elif about.get("kind") == "option":
            where: Any = group(about["group"]) if about["group"] else parser
            if about["instead"] is not None:
                where = alternatives(about["instead"], where)
            where.add_argument(flag(field.name), **_form(field, types_of[field.name], explained))
            names.append(flag(field.name))
        elif about.get("kind") == "settings":
            from train.options.recipe import add_settings

            names += add_settings(parser, _SETTING, about["leave_out"], explained=explained)
    return names


def _form(field: dataclasses.Field, hint: Any, explained: bool) -> dict[str, Any]:
    """How argparse is told of an argument or an option."""
    about, kind = field.metadata, _plain(hint)
    default = None if field.default is dataclasses.MISSING else field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    form: dict[str, Any] = {
        "help": _help(about, default) if explained else None,
        "default": default,
    }
    if about.get("required"):
        form["required"] = True
    if kind is bool:
        return {**form, "action": "store_true"}
    if typing.get_origin(kind) is not Literal:
        form["metavar"] = about["metavar"] or field.name.split("_")[-1].upper()
    parse = about.get("parse")
    if typing.get_origin(kind) is list:
        form["action"] = Gather
        if parse is None:
            (kind,) = typing.get_args(kind)
            form["nargs"] = "+"
    if "nargs" in about:
        form["nargs"] = about["nargs"]
    if typing.get_origin(kind) is Literal:
        return {**form, "choices": typing.get_args(kind)}
    return {**form, "type": parse or reader(kind)}


def _plain(hint: Any) -> Any:
    """A type without None: of `int | None`, `int`."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (member for member in typing.get_args(hint) if member is not types.NoneType)
    return hint


def _help(about: Mapping[str, Any], default: Any) -> str:
    text = _text(about["help"])
    if "(default" not in text and default not in (None, False, []):
        words = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        text += f" (default: {words})"
    return text.replace("%", "%%")


def run_program(
    program: str, description: str, commands: Sequence[type[Command]], arguments: Sequence[str]
) -> int:
    r"""Runs a command and tells in one sentence what ends it early; arguments as of `parse`.

    Returns:
        The exit code: the command's own, that of the `CommandError` that ended it, 130 after
        Ctrl-C, or 141 where nobody reads what it prints.

    What the encoding of stdout has no letters for is printed as numbers, as on stderr: `\u732b`;
    so is what would command a terminal.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        require_environment()
        command = parse(program, description, commands, arguments)
        with printed():
            return command.run()
    except PreemptedError as stopped:
        return _end(stopped, str(stopped))
    except CommandError as error:
        return _end(error, f"error: {error}")
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        sentence = explained(error)
        if sentence is None:
            raise
        return _end(UserError(sentence), f"error: {sentence}")


def _end(error: CommandError, text: str) -> int:
    """Prints why a command ends, once for all processes of a run; returns the exit code."""
    if error.in_every_process:
        from train.distributed import processes  # which has been at work, then

        if not processes.is_first():
            return error.exit_code
    _tell(text)
    return error.exit_code


def _tell(text: str) -> None:
    """Prints why a command ends, where anybody can be told."""
    # What a message lists is indented; any other line is one that somebody put into a name.
    text = re.sub(r"\n(?!  )", r"\\n", text)
    with contextlib.suppress(UserError, BrokenPipeError), printed():
        print(text, file=sys.stderr)
