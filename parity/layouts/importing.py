"""From a file of PyTorch weights to a run that `python -m train` goes on with."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

import capsjax
from parity.check import weights
from parity.layouts import Layout, Match, builtin_layouts, get_layout, match
from parity.layouts.state_files import State, read_state, require_suffix
from train.config.fit_config import FitConfig
from train.data import is_dataset, list_datasets, load_dataset
from train.data.catalog import SOURCES
from train.data.sources import mnist
from train.learn.network import build_model, training_key
from train.learn.optimizer import build_optimizer
from train.learn.update import AXIS, initial_state
from train.run.checkpoints import Checkpoints
from train.run.folder import Run, prepare_folder
from train.system.errors import UserError
from train.system.files import writing

AUTO = "auto"

Change = Callable[[FitConfig], FitConfig]


@dataclass(frozen=True)
class Imported:
    """What has been imported.

    Attributes:
        run: the run that was made.
        layout: the layout that was taken.
        parameters: number of their values, statistics of batches not among them.
        casts: for each dtype that was converted, the number of its tensors.
        others: further data sets with such images.
    """

    run: Run
    layout: Layout
    parameters: int
    casts: Mapping[str, int]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """What a network has to know of a data set.

    Attributes:
        shape: `(height, width, channels)`.
        class_names: a name for each class.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    def __str__(self) -> str:
        """Their size and number of classes in words."""
        return f"{'x'.join(map(str, self.shape))} in {len(self.class_names)} classes"


def import_weights(
    path: Path,
    *,
    layout: str,
    out: Path,
    dataset: str | None = None,
    change: Change = lambda config: config,
    overwrite: bool = False,
) -> Imported:
    """Makes a run of a file of weights: what `fit` leaves before its first step.

    Args:
        path: the file, see `read_state`.
        layout: the name of a layout, the path of a TOML file, or `"auto"`.
        out: the run's folder.
        dataset: what the network was trained on; by default the first set that has such images.
        change: makes a configuration from that of the layout, where the network differs from the
            published one.
        overwrite: replace the run in `out`, if there is one.

    Raises:
        UserError: on bad input; nothing is written then.
    """
    state = read_state(path)
    table = recognise(path, state) if layout == AUTO else get_layout(layout)
    require_suffix(path, table.formats)
    found = match(table, _shapes(state))
    _require_sound(path, found, state)

    name, others = choose_dataset(path, found, change, dataset)
    images = describe_dataset(name)
    config = configure(found, name, images, change)
    model = build(config, images, found, state, path)
    run = Run(out, config, images.shape, images.class_names)
    _write(run, model, overwrite=overwrite)
    casts: dict[str, int] = {}
    for tensor in state.values():
        if tensor.dtype != jnp.dtype(config.model.param_dtype):
            casts[str(tensor.dtype)] = casts.get(str(tensor.dtype), 0) + 1
    parameters = sum(array.size for array in weights.variables(model).values())
    return Imported(run, table, parameters, casts, others)


def recognise(path: Path, state: State, layouts: Sequence[Layout] | None = None) -> Layout:
    """The layout whose names and shapes a state dict has.

    Args:
        path: the file that it comes from, for the messages.
        state: the tensors.
        layouts: the candidates; by default those that come with the program.

    Raises:
        UserError: if none fits, or more than one.
    """
    candidates = builtin_layouts() if layouts is None else layouts
    matches = [match(layout, _shapes(state)) for layout in candidates]
    fitting = [found for found in matches if found.fits]
    if len(fitting) == 1:
        return fitting[0].layout
    if fitting:
        names = ", ".join(found.layout.name for found in fitting)
        raise UserError(f"{path} fits more than one layout: choose with --layout one of {names}.")
    most = max(found.found for found in matches)
    nearest = [found for found in matches if found.found == most]
    if not most:
        known = ", ".join(layout.name for layout in candidates)
        raise UserError(
            f"{path} fits no layout; {_first(state, 4)} are names of none of {known}: describe it "
            "in a TOML file and give --layout FILE."
        )
    if len(nearest) > 1:
        names = ", ".join(found.layout.name for found in nearest)
        raise UserError(
            f"{path} fits no layout; equally near are {names}: choose one with --layout to see "
            "what differs, or describe yours in a TOML file and give --layout FILE."
        )
    raise _misfit(path, nearest[0], "fits no layout; the nearest is {name}, from which it differs")


def configure(found: Match, dataset: str, images: Images, change: Change) -> FitConfig:
    """The configuration of a network: what its layout computes, with the sizes of its tensors.

    Args:
        found: the layout, laid over the tensors.
        dataset: what to train and test on.
        images: the images of that set.
        change: the last word on everything else.

    Raises:
        UserError: if `change` makes a value that is out of its range.
    """
    config = found.layout.config(images.shape, len(images.class_names))
    options = {**config.model.options, **found.model_options()}
    config = config.changed(dataset=dataset, model_options=options)
    return change(config)


def build(config: FitConfig, images: Images, found: Match, state: State, path: Path) -> nnx.Module:
    """Makes the network of a configuration with the tensors of a file.

    Raises:
        UserError: if the configuration is of another network.
    """
    model = _without_values(config, images)
    try:
        weights.load(model, found.to_capsjax(state), weights.LEARNED)
    except ValueError as error:
        raise UserError(
            f"{path} does not fit the network of this configuration: {error}."
        ) from error
    return model


def _without_values(config: FitConfig, images: Images) -> nnx.Module:
    return nnx.eval_shape(
        lambda: build_model(config, images.shape, len(images.class_names), axis=AXIS)
    )


def choose_dataset(
    path: Path, found: Match, change: Change, wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    """The data set whose images fit the tensors.

    Args:
        path: the file, for the messages.
        found: the layout, laid over the tensors.
        change: what the user says of the configuration, such as strides, which no tensor tells.
        wanted: the name of a set, or None for the first that fits.

    Returns:
        Its name, and those of further sets with images of the same shape and as many classes.

    Raises:
        UserError: if that set does not fit, none does, or sets with different images do.
    """
    names = ("digits", *(s.name for s in mnist.SOURCES)) if wanted is None else (wanted,)
    if wanted is not None and not is_dataset(wanted):
        raise UserError(f"unknown dataset {wanted!r}, choose from: {', '.join(list_datasets())}.")
    known = {name: describe_dataset(name) for name in names}
    likely = [name for name in names if _could_be(found, known[name])]
    misfits = {name: _misfit_of(found, name, known[name], change) for name in likely}
    fitting = [name for name in likely if misfits[name] is None]
    if not fitting:
        have = ", ".join(f"{name} {known[name]}" for name in names)
        images = _images_of(found, change(found.layout.config()))
        lines = [
            f"{path} is of a network for {images}; {have} "
            + ("has no such images." if len(names) == 1 else "have no such images.")
        ]
        lines += [f"with {name}: {misfit}" for name, misfit in misfits.items()]
        raise UserError("\n  ".join(lines))
    if len({known[name].shape for name in fitting}) > 1:
        raise UserError(
            f"{path} is of a network without decoder, which does not tell the size of its images: "
            f"say with --dataset which of {', '.join(fitting)} it is for."
        )
    return fitting[0], tuple(fitting[1:])


def describe_dataset(name: str) -> Images:
    """Shape and classes of a data set; of those that are files, without the files."""
    if source := SOURCES.get(name):
        return Images(source.image_shape, source.class_names)
    dataset = load_dataset(name)
    return Images(dataset.image_shape, dataset.class_names)


def _could_be(found: Match, images: Images) -> bool:
    """Whether a network, whatever its strides, can be for such images."""
    return (
        images.shape[2] == found.sizes["c"]
        and len(images.class_names) == found.sizes["j"]
        and found.pixels in (None, math.prod(images.shape))
    )


def _misfit_of(found: Match, name: str, images: Images, change: Change) -> str | None:
    """Why a network for such images has other parameters than the file; None if it has not."""
    try:
        model = _without_values(configure(found, name, images, change), images)
        weights.require_shapes(model, found.shapes, weights.LEARNED)
    except (UserError, ValueError) as error:
        return str(error)
    return None


def _images_of(found: Match, config: FitConfig) -> str:
    sizes = found.sizes
    pixels = "" if found.pixels is None else f" of {found.pixels // sizes['c']} pixels"
    images = f"images{pixels} with {sizes['c']} channel{'s' * (sizes['c'] > 1)}"
    capsules = ""
    if "i" in sizes:
        capsules = f", with {sizes['i']} primary capsules of {sizes['t']} types"
    strides = {
        option: config.model.options.get(option, published)
        for option, published in capsjax.published_options(config.model.name).items()
        if option.endswith(("stride", "strides"))
    }
    return (
        f"{images} in {sizes['j']} classes{capsules} (with strides "
        f"{' and '.join(str(stride) for stride in strides.values())}, which --model-options "
        f"{' '.join(f'{option}=N' for option in strides)} changes)"
    )


def _require_sound(path: Path, found: Match, state: State) -> None:
    """Tells everything that is wrong with the tensors at once.

    Raises:
        UserError: if something is missing, left over, misshapen, no float, or not finite.
    """
    not_floats = [
        f"{name} ({tensor.dtype})"
        for name, tensor in state.items()
        if not jnp.issubdtype(tensor.dtype, jnp.floating)
    ]
    further = [f"no floating dtype: {', '.join(not_floats)}"] if not_floats else []
    not_finite = [
        f"{name} ({_strange(tensor)})" for name, tensor in state.items() if _strange(tensor)
    ]
    if not_finite:
        further.append(f"not finite: {', '.join(not_finite)}")
    if found.problems() or further:
        raise _misfit(path, found, "does not fit the layout {name}", further)


def _strange(tensor: np.ndarray) -> str:
    """How many values are not finite, in words; nothing if all are."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return ""
    wide = tensor.astype(np.float64)
    counts = {"NaN": int(np.isnan(wide).sum()), "infinite": int(np.isinf(wide).sum())}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _misfit(path: Path, found: Match, what: str, further: Sequence[str] = ()) -> UserError:
    lines = [f"{path} {what.format(name=found.layout.name)}:", *found.problems(), *further]
    return UserError("\n  ".join(lines))


def _write(run: Run, model: nnx.Module, *, overwrite: bool) -> None:
    """Writes configuration and checkpoint 0: first beside the folder, then whole into it.

    Raises:
        UserError: if the folder is taken, or cannot be written.
    """
    _, state = initial_state(model, build_optimizer(run.config), training_key(run.config))
    folder = run.folder.resolve()
    staged = dataclasses.replace(run, folder=folder.with_name(f".{folder.name}.new"))
    try:
        prepare_folder(staged, resume=False, overwrite=True)
        with Checkpoints(staged.checkpoints) as checkpoints:
            checkpoints.save(state)
        prepare_folder(run, resume=False, overwrite=overwrite)
        with writing(run.folder):
            staged.checkpoints.rename(run.checkpoints)
    finally:
        shutil.rmtree(staged.folder, ignore_errors=True)


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in state.items()}


def _first(names: Mapping[str, Any], count: int) -> str:
    shown = list(names)[:count]
    return ", ".join(shown) + (", ..." if len(names) > count else "")
