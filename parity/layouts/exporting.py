"""From a run of `python -m train` to a file of PyTorch weights."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from capsjax.capsules import squash_from
from parity.layouts import weights
from parity.layouts.match import match_parameters
from parity.layouts.state_files import require_suffix, with_counters, write_state
from parity.layouts.table import DIALECT_FIELDS, Layout, all_options, get_layout
from train.config.fit_config import FitConfig
from train.learn.network import build_routing, seen_shape
from train.learn.user_routing import is_own
from train.report.loading import load_state
from train.run.checkpoint_files import Which
from train.run.folder import Run, load_run
from train.system.errors import UserError

_OF_THE_DECODER = ("reconstruction_weight", "mask_in_training", "mask_in_test")
_OF_THE_MODEL = ("model_options", "routing_iterations", "routing_options")
_COMPARED = ("standardise", *(name for name in DIALECT_FIELDS if name not in _OF_THE_MODEL))


class Exported(NamedTuple):
    """The layout and the checkpoint's step of the weights that were written, and their numbers.

    Statistics of batches are among the `tensors`, not among the values of `parameters`;
    `differences` are those of what the run and the layout's network compute.
    """

    layout: Layout
    step: int
    tensors: int
    parameters: int
    differences: tuple[str, ...]


def export_run(
    folder: Path,
    *,
    layout: str,
    out: Path,
    which: Which = "last",
    overwrite: bool = False,
    force: bool = False,
) -> Exported:
    """Writes the weights of a run as a PyTorch network calls and turns them.

    Arguments are those of the command `export`.

    Raises:
        UserError: on bad input, or if the layout cannot say what the run computes; nothing is
            written then.
    """
    run, table = load_run(folder), get_layout(layout)
    require_suffix(out, table.formats)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: replace it (--overwrite), or choose another --out.")
    if is_own(run.config.model.routing):
        raise UserError(
            f"{folder} routes with {run.config.model.routing}, which no layout has: nothing is "
            "exported."
        )
    different = differences(run, table)
    if different and not force:
        raise UserError(
            f"{folder} computes something else than {table.name}, whose network would not give the "
            "same results; --force writes the weights all the same. They differ in:\n  "
            + "\n  ".join(different)
        )
    _, state = load_state(run, which, devices=1)
    parameters = weights.by_name(state.weights)
    learned = jax.device_get({**parameters, **weights.by_name(state.model_state)})
    found = match_parameters(table, learned)
    if not found.fits:
        first = f"{folder} has other parameters and cannot be written as {table.name}:"
        raise UserError("\n  ".join([first, *found.problems()]))
    tensors = with_counters(found.to_source(learned), int(state.step))
    write_state(out, tensors)
    return Exported(
        table,
        int(state.step),
        len(tensors),
        sum(array.size for array in parameters.values()),
        tuple(different),
    )


def differences(run: Run, layout: Layout) -> list[str]:
    """The fields, with both values, in which a run computes something else than a layout's network.

    Sizes are no difference, and neither are other arguments of the PyTorch network.
    """
    config = run.config
    expected = layout.config(seen_shape(config, run.image_shape), run.num_classes)
    if config.model.name != expected.model.name:
        return [f"model: {config.model.name!r}, expected {expected.model.name!r}"]
    compared = layout.table.compared
    ours, theirs = _behaviour(config, compared), _behaviour(expected, compared)
    if all_options(config).get("decoder_hidden") is None:
        for name in (*_OF_THE_DECODER, "model_options decoder_combine"):
            ours.pop(name, None)
    pairs = {name: (value, theirs.get(name)) for name, value in ours.items()}
    return [f"{name}: {a!r}, expected {b!r}" for name, (a, b) in pairs.items() if not _same(a, b)]


def _same(a: Any, b: Any) -> bool:
    are_numbers = isinstance(a, float) and isinstance(b, int | float)
    return math.isclose(a, b, rel_tol=1e-9) if are_numbers else a == b


def _behaviour(config: FitConfig, compared: Sequence[str]) -> dict[str, Any]:
    """What a configuration and `compared` options of its model compute, with every default."""
    values: dict[str, Any] = {name: config.value(name) for name in _COMPARED}
    options = all_options(config)
    values |= {f"model_options {name}": _plain(name, options[name]) for name in compared}
    routing: Any = build_routing(config)
    if dataclasses.is_dataclass(routing):
        of_routing = {f.name: getattr(routing, f.name) for f in dataclasses.fields(routing)}
        values["routing_iterations"] = of_routing.pop("iterations", None)
        values |= {f"routing_options {name}": value for name, value in of_routing.items()}
    return values


def _plain(name: str, value: Any) -> Any:
    """A value of an option as it is compared, whether it was Python's or came from a file."""
    if name.endswith("squash"):
        return squash_from(value)
    return list(value) if isinstance(value, tuple) else value
