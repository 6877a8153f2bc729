"""Command-line options that follow from `FitConfig`, and a parser that speaks in one sentence."""

import argparse
import difflib
import json
from collections.abc import Callable, Collection
from typing import Any, NoReturn

import capsjax
from train.config.fit_config import SETTINGS, FitConfig
from train.config.model import ModelConfig
from train.config.setting import option
from train.system.errors import UserError


class UserErrorParser(argparse.ArgumentParser):
    """An argument parser that raises `UserError` and names the options there are."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parses; an unknown option is told with those of the chosen command.

        Raises:
            UserError: if the arguments are wrong.
        """
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = self._command(options.command)
            known = sorted(name for name in command._option_string_actions if name.startswith("--"))
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(
                f"unknown argument {unknown[0]!r}{hint}; the options of {options.command} are "
                f"{', '.join(known)}."
            )
        return options

    def _command(self, name: str) -> argparse.ArgumentParser:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action.choices[name]
        return self

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` instead of ending the program."""
        raise UserError(f"{message}; {self.prog} --help explains.")


def add_config_options(
    parser: argparse.ArgumentParser, only: Collection[str] | None = None
) -> None:
    """Adds an option for each field of `FitConfig`, or for some, except the preset itself."""
    group = parser.add_argument_group("what to compute (default: what the recipe says)")
    for name, found in SETTINGS.items():
        if name == "preset" or (only is not None and name not in only):
            continue
        kinds, choices, text = found.types, *map(found.field.metadata.get, ("choices", "help"))
        if dict in kinds:
            group.add_argument(
                option(name),
                dest=name,
                metavar="NAME=VALUE",
                nargs="+",
                type=_named_value,
                help=f"{text}, such as NAME=3 or NAME=[1,2]",
            )
        elif bool in kinds:
            group.add_argument(
                option(name),
                dest=name,
                action=argparse.BooleanOptionalAction,
                help=text,
            )
        else:
            group.add_argument(
                option(name),
                dest=name,
                metavar="|".join(choices) if choices else name.split("_")[-1].upper(),
                type=_number(int if int in kinds else float) if kinds[0] is not str else str,
                help=text,
            )


def config_changes(config: FitConfig, options: argparse.Namespace) -> FitConfig:
    """The recipe's configuration with the options that were given.

    Another model comes with the routing that it was published with, unless one is given, and
    without the recipe's options of its own model and routing.

    Raises:
        UserError: if a value is out of its range, or steps and epochs are both given.
    """
    names = [name for name in SETTINGS if name != "preset"]
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if "steps" in given and "epochs" in given:
        raise UserError("--steps and --epochs both say how long to train: give one of them.")
    if "epochs" in given:
        given["steps"] = None
    if given.get("model", config.model.name) != config.model.name:
        # A name that does not exist is told with all the others, below.
        known = given["model"] in capsjax.list_models()
        published = capsjax.published_routing(given["model"]) if known else None
        given.setdefault("routing", published or ModelConfig.routing)
        config = config.changed(model_options={}, routing_options={})
    for name, value in given.items():
        if isinstance(config.value(name), dict):
            given[name] = {**config.value(name), **dict(value)}
    return config.changed(**given)


def _number(kind: type) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from error

    return number


def _named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
