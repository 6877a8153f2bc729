"""The settings of a run as options, and a recipe with those that were given."""

import argparse
import functools
import json
from collections.abc import Collection, Mapping
from typing import Any

from train.config.checked import flag, listed
from train.config.fit_config import SETTINGS, FitConfig, as_said, require_heeded, with_options
from train.config.settings import ModelConfig
from train.options.values import Gather, reader


def add_settings(
    parser: argparse.ArgumentParser,
    prefix: str,
    leave_out: Collection[str] = (),
    *,
    explained: bool,
) -> list[str]:
    """Adds an option for each setting except the preset and those to leave out by flat name.

    The destinations of their values begin with the prefix. Only where they are explained do they
    tell what there is to choose from. Returns the options.
    """
    group = functools.cache(parser.add_argument_group)
    names = [name for name in SETTINGS if name not in {"preset", *leave_out}]
    for name in names:
        kinds, about = SETTINGS[name].types, SETTINGS[name].field.metadata
        form: dict[str, Any] = {"dest": prefix + name, "help": about["help"].replace("%", "%%")}
        if dict in kinds:
            form |= {"metavar": "NAME=VALUE", "nargs": "+", "action": Gather}
            form["type"] = _named_value
            form["help"] += ", such as NAME=3 or NAME=[1,2]"
        elif list in kinds:
            form |= {"metavar": "NAME", "nargs": "+", "action": Gather}
        elif bool in kinds:
            form["action"] = argparse.BooleanOptionalAction
        else:
            choices = listed(about["choices"]) if explained else ()
            form["metavar"] = "|".join(choices)
            if not 0 < len(form["metavar"]) < 60:
                form["metavar"] = name.split("_")[-1].upper()
                form["help"] += f": {', '.join(choices)}" if choices else ""
            form["type"] = reader(kinds[0])
        title = f"{SETTINGS[name].group or 'run'} (default: what the recipe says)"
        group(title).add_argument(flag(name), **form)
    switches = [name for name in names if bool in SETTINGS[name].types]
    return [*map(flag, names), *(f"--no-{name.replace('_', '-')}" for name in switches)]


def with_settings(config: FitConfig, given: Mapping[str, Any]) -> FitConfig:
    """A recipe with the settings that were given.

    They are by flat names, as the field of a command has them that `settings` made. Another model
    comes with the routing that it was published with, unless one is given, and without the recipe's
    options of its own model and routing; another routing without the recipe's options of its own.

    Raises:
        UserError: if a value is out of its range, steps and epochs are both given, or a setting
            that says nothing beside the others.
    """
    values = as_said(given)
    if values.get("routing", config.model.routing) != config.model.routing:
        config = config.changed(routing_options={})
    if values.get("model", config.model.name) != config.model.name:
        import capsjax  # JAX takes a second

        # A name that does not exist is refused with all the others, below.
        known = values["model"] in capsjax.list_models()
        published = capsjax.models.published_routing(values["model"]) if known else None
        values.setdefault("routing", published or ModelConfig.routing)
        config = config.changed(model_options={}, routing_options={})
    config = config.changed(**with_options(config, values))
    require_heeded(given, [config])
    return config


def _named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
