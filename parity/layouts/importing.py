"""From a file of PyTorch weights to a run that `python -m train` goes on with."""

import dataclasses
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from parity.layouts import keras_files, weights
from parity.layouts.data_sets import Change, runs_of
from parity.layouts.match import Match, match, some
from parity.layouts.misread import misread_row
from parity.layouts.state_files import State, kind_of, read_state, unwrapped
from parity.layouts.table import Layout, all_options, builtin_layouts, get_layout
from train.learn.optimizer import build_optimizer
from train.learn.training_state import initial_state
from train.run.checkpoint_files import Checkpoints
from train.run.folder import Run, prepare_folder
from train.system.errors import UserError
from train.system.files import writing

AUTO = "auto"
_USUAL = {".pth": ".pt", ".hdf5": ".h5"}
"""What `kind_of` calls a suffix."""

Verify = Callable[[Run, Match, State], None]
"""Raises a UserError where a run that is made of the tensors of a match is not what is wanted."""


class Imported(NamedTuple):
    """The run that was made of a file of weights, and the layout that was taken.

    `parameters` is the number of their values, statistics of batches not among them; `casts` has,
    for each dtype that was converted, the number of its tensors; `others` would fit, too.
    """

    run: Run
    layout: Layout
    parameters: int
    casts: Mapping[str, int]
    others: tuple[str, ...]


def import_weights(
    path: Path,
    *,
    layout: str,
    out: Path,
    dataset: str | None = None,
    change: Change = lambda config: config,
    overwrite: bool = False,
    verify: Verify = lambda run, found, state: None,
) -> Imported:
    """Makes a run of a file of weights: what `fit` leaves before its first step.

    Arguments are those of the command `import`. The data set is by default the first one that has
    such images; `change` makes a configuration from that of the layout, where the network differs
    from the published one. What `verify` raises ends it.

    Raises:
        UserError: on bad input; nothing is written then.
    """
    state = read_state(path)
    found, state = match_state(path, state, layout)
    kinds = {_USUAL.get(suffix, suffix) for suffix in found.layout.formats}
    if (kind := kind_of(path)) not in kinds:
        raise UserError(
            f"{path} is a {kind} file, but one of the layout {found.layout.name} must be one of: "
            f"{', '.join(found.layout.formats)}."
        )
    if wrong := problems(found, state):
        raise UserError(
            "\n  ".join([f"{path} does not fit the layout {found.layout.name}:", *wrong])
        )

    (run, model), *others = runs_of(path, found, change, dataset, out)
    _require_what_is_told(path, run)
    kept = _as_kept(path, run, state)
    verify(run, found, state)
    weights.load(model, found.to_capsjax(kept), weights.LEARNED)
    _write(run, model, overwrite=overwrite)
    casts = Counter(
        str(tensor.dtype)
        for tensor in state.values()
        if tensor.dtype != jnp.dtype(run.config.model.param_dtype)
    )
    parameters = sum(array.size for array in weights.variables(model).values())
    names = tuple(other.config.data.dataset for other, _ in others)
    return Imported(run, found.layout, parameters, casts, names)


def match_state(path: Path, state: State, layout: str) -> tuple[Match, State]:
    """Lays a layout, by its name, the path of a TOML file or `"auto"`, over a file's state dict.

    Returns it and the tensors, by the names in the network itself where that is a part of another.
    A UserError if there is no such layout, or `"auto"` finds none, or more than one.
    """
    layouts = builtin_layouts() if layout == AUTO else [get_layout(layout)]

    def unknown(state: State) -> int:
        return min(len(match(one, state).extra) for one in layouts)

    state = min([state, *unwrapped(state)], key=unknown)
    return (recognise(path, state, layouts) if layout == AUTO else match(layouts[0], state)), state


def recognise(path: Path, state: State, layouts: Sequence[Layout]) -> Match:
    """The layout, of several, whose names and shapes a state dict has; or a UserError."""
    matches = [match(layout, state) for layout in layouts]
    fitting = [found for found in matches if found.fits]
    if len(fitting) == 1:
        return fitting[0]
    least = min(len(found.extra) for found in matches)
    shown = fitting or [found for found in matches if len(found.extra) == least]
    names = ", ".join(found.layout.name for found in shown)
    if fitting:
        raise UserError(f"{path} fits more than one layout: choose with --layout one of {names}.")
    if least == len(state):
        tensors = some([*state])
        raise UserError(
            f"{path} fits no layout; {tensors} are names of none of {names}: describe it in a TOML "
            "file, as docs/guides/pytorch.md tells, and give --layout FILE."
        )
    if len(shown) > 1:
        raise UserError(
            f"{path} fits no layout; equally near are {names}: choose one with --layout to see "
            "what differs, or describe yours in a TOML file and give --layout FILE."
        )
    first = f"{path} fits no layout; the nearest is {names}, from which it differs:"
    raise UserError("\n  ".join([first, *problems(shown[0], state)]))


def problems(found: Match, state: State) -> list[str]:
    """What is missing, left over, misshapen, no float or not finite, a line for each kind."""
    kinds: dict[str, list[str]] = {"no floating dtype": [], "not finite": []}
    for name, tensor in state.items():
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            kinds["no floating dtype"].append(f"{name} ({tensor.dtype})")
            continue
        wide = tensor.astype(np.float64)
        counts = {"NaN": int(np.isnan(wide).sum()), "infinite": int(np.isinf(wide).sum())}
        if shown := ", ".join(f"{count} {kind}" for kind, count in counts.items() if count):
            kinds["not finite"].append(f"{name} ({shown})")
    told = found.problems() + [f"{kind}: {some(of)}" for kind, of in kinds.items() if of]
    if not found.fits and not found.extra and (row := misread_row(found.layout, state)):
        told.insert(0, row)
    return told


def _require_what_is_told(path: Path, run: Run) -> None:
    """Refuses a run that computes otherwise than its file tells, with the options that do not."""
    if kind_of(path) not in (".h5", ".hdf5"):
        return
    told = keras_files.told_options(path)
    flags = []
    slope, ours = told.get("conv_slope"), all_options(run.config).get("conv_slope")
    if slope is not None and ours is not None and slope != ours:
        flags.append(f"--model-options conv_slope={slope:g}")
    iterations = told.get("routing_iterations", run.config.model.routing_iterations)
    if iterations != run.config.model.routing_iterations:
        flags.append(f"--routing-iterations {iterations}")
    if flags:
        raise UserError(
            f"{path} holds a whole model, which computes otherwise than its weights alone let "
            f"suppose: import it with {' '.join(flags)}."
        )


def _as_kept(path: Path, run: Run, state: State) -> State:
    """The tensors in the dtype in which the run keeps them; a UserError where one is infinite."""
    dtype = run.config.model.param_dtype
    with np.errstate(over="ignore"):
        kept = {name: tensor.astype(jnp.dtype(dtype), copy=False) for name, tensor in state.items()}
    if large := [name for name, tensor in kept.items() if not np.isfinite(tensor).all()]:
        raise UserError(f"{path} has numbers that are too large for {dtype}: {some(large)}.")
    return kept


def assumed(run: Run) -> list[str]:
    """What a run computes that no tensor tells, each with the option that says otherwise."""
    config, options = run.config, all_options(run.config)
    strides = [name for name in options if name.endswith(("stride", "strides"))]
    slope = options.get("conv_slope")
    normalised = " after instance normalisation" if options.get("instance_norm") else ""
    rectifier = f"a rectifier of slope {slope:g} below zero" if slope else "a plain rectifier"
    mean, deviation = config.data.input_mean, config.data.input_std
    plain = (mean, deviation) == (0, 1)
    of = " of a softmax" if config.objective.margin_of == "softmax" else ""
    loss = config.objective.loss.replace("_", " ")
    return [
        *(f"{name} {options[name]} (--model-options)" for name in strides),
        *(
            []
            if slope is None
            else [f"{rectifier}{normalised} (--model-options conv_slope=, instance_norm=)"]
        ),
        f"{config.model.routing_iterations} routing iterations (--routing-iterations)",
        "images from 0 to 1 (--input-mean, --input-std)"
        if plain
        else f"images less {mean:g}, over {deviation:g} (--input-mean, --input-std)",
        f"the {loss} loss{of} (--loss, --margin-of)",
    ]


def _write(run: Run, model: nnx.Module, *, overwrite: bool) -> None:
    """Writes configuration and checkpoint 0: first beside the folder, then whole into it."""
    _, state = initial_state(model, build_optimizer(run.config), run.config)
    with writing(run.folder):
        parent = run.folder.resolve().parent
        parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.mkdtemp(prefix=".importing-", dir=parent)
    staged = dataclasses.replace(run, folder=Path(beside, "run"))
    try:
        prepare_folder(staged, resume=False, overwrite=False)
        with Checkpoints(staged.checkpoints) as checkpoints:
            checkpoints.save(state)
        prepare_folder(run, resume=False, overwrite=overwrite)
        with writing(run.folder):
            staged.checkpoints.rename(run.checkpoints)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
