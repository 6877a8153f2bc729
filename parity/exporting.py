"""From a run of `python -m train` to a file of PyTorch weights."""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import capsjax
from capsjax.capsules import squash_from
from parity import weights
from parity.layouts import Layout, Match, get_layout, match_parameters
from parity.state_files import require_suffix, write_state
from train.checkpoint import Which
from train.config import FitConfig
from train.errors import UserError
from train.evaluate import load_state
from train.network import seen_shape
from train.run import Run, load_run

_COMPARED_MODEL_OPTIONS = ("conv_stride", "primary_order", "primary_squash", "decoder_combine")
_OF_THE_DECODER = ("reconstruction_weight", "mask_in_training", "mask_in_test")


@dataclass(frozen=True)
class Exported:
    """What has been exported.

    Attributes:
        layout: the layout.
        step: of the checkpoint.
        tensors: how many were written.
        parameters: number of their values.
        differences: in what the run computes something else than the layout's network.
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

    Args:
        folder: the run.
        layout: the name of a layout, or the path of a TOML file.
        out: the file; its suffix says of which kind.
        which: the newest checkpoint, or the one with the highest test accuracy.
        overwrite: replace the file, if there is one.
        force: write the weights although the run computes something else than the layout's network.

    Raises:
        UserError: on bad input, or if the layout cannot say what the run computes; nothing is
            written then.
    """
    run, table = load_run(folder), get_layout(layout)
    require_suffix(out, table.formats)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: replace it (--overwrite), or choose another --out.")
    different = differences(run, table)
    if different and not force:
        raise UserError(
            "\n  ".join(
                [
                    f"{folder} computes something else than {table.name}, whose network would not "
                    "give the same results; --force writes the weights all the same. They differ "
                    "in:",
                    *different,
                ]
            )
        )
    _, state = load_state(run, which, devices=1)
    parameters = {
        name: np.asarray(jax.device_get(array))
        for name, array in weights.by_name(state.weights).items()
    }
    found = match_parameters(table, {name: a.shape for name, a in parameters.items()})
    _require_complete(run, found)
    tensors = found.to_source(parameters)
    write_state(out, tensors)
    return Exported(
        table,
        int(state.step),
        len(tensors),
        sum(array.size for array in parameters.values()),
        tuple(different),
    )


def differences(run: Run, layout: Layout) -> list[str]:
    """In what a run computes something else than a layout's network of the same sizes.

    Sizes are no difference, and neither is the stride of the primary capsules: a network has them
    as arguments.

    Returns:
        A text for each field, with the run's value and the layout's.
    """
    config = run.config
    expected = layout.config(seen_shape(config, run.image_shape), run.num_classes)
    if config.model != expected.model:
        return [f"model: {config.model!r}, expected {expected.model!r}"]
    ours, theirs = _behaviour(config), _behaviour(expected)
    if config.model_options.get("decoder_hidden", ()) is None:
        for name in (*_OF_THE_DECODER, "model_options decoder_combine"):
            ours.pop(name, None)
    return [
        f"{name}: {value!r}, expected {theirs.get(name)!r}"
        for name, value in ours.items()
        if not _same(value, theirs.get(name))
    ]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b


def _behaviour(config: FitConfig) -> dict[str, Any]:
    """What a configuration computes, apart from sizes, with every default written out."""
    values: dict[str, Any] = {
        name: getattr(config, name)
        for name in (
            "input_mean",
            "input_std",
            "standardise",
            "margin_of",
            "margin_power",
            "margin_weight",
            *_OF_THE_DECODER,
            "routing",
        )
    }
    published = inspect.signature(capsjax.CapsNet.__init__).parameters
    for name in _COMPARED_MODEL_OPTIONS:
        value = config.model_options.get(name, published[name].default)
        values[f"model_options {name}"] = squash_from(value) if name == "primary_squash" else value
    return values | _routing(config)


def _routing(config: FitConfig) -> dict[str, Any]:
    routing: Any = capsjax.create_routing(
        config.routing, iterations=config.routing_iterations, **config.routing_options
    )
    if isinstance(routing, capsjax.LearnedPrior):
        routing = routing.routing
    if not dataclasses.is_dataclass(routing):
        return {}
    values = {f.name: getattr(routing, f.name) for f in dataclasses.fields(routing)}
    iterations: Mapping[str, Any] = {"routing_iterations": values.pop("iterations", None)}
    return {**iterations, **{f"routing_options {name}": v for name, v in values.items()}}


def _require_complete(run: Run, found: Match) -> None:
    lines = []
    if found.missing:
        lines.append(f"parameters that the run has not: {', '.join(found.missing)}")
    if found.extra:
        lines.append(f"parameters that the layout has not: {', '.join(found.extra)}")
    if lines:
        raise UserError(
            "\n  ".join([f"{run.folder} cannot be written as {found.layout.name}:", *lines])
        )
