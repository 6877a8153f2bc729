"""The data sets whose images a network of imported weights is for, and the runs on them."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from parity.layouts import weights
from parity.layouts.match import Match
from parity.layouts.table import all_options
from train.config.fit_config import FitConfig
from train.data import Dataset, is_dataset, list_datasets, load_dataset
from train.data.catalog import SOURCES
from train.data.formats.images import as_text
from train.data.official import Source
from train.data.sources import mnist
from train.learn.network import build_model, seen_shape
from train.learn.step import AXIS
from train.run.folder import Run
from train.system.errors import UserError, require_known

STRIDES, MOST = (1, 2, 3, 4), 4
"""Strides that are tried where none of the layout's fits, and how many suggestions are made."""

SIDES = (32, 28, 24)
"""Of the squares to which a crop is suggested where no tensor tells the size of images."""

Change = Callable[[FitConfig], FitConfig]


def configure(
    found: Match,
    dataset: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> FitConfig:
    """The configuration of a network on a data set: its layout's, with the sizes of its tensors."""
    config = found.layout.config(image_shape, num_classes)
    options = {**config.model.options, **found.model_options()}
    return config.changed(dataset=dataset, model_options=options)


def runs_of(
    path: Path, found: Match, change: Change, wanted: str | None, folder: Path
) -> list[tuple[Run, nnx.Module]]:
    """The run and the network, without values, of each data set whose images fit the tensors.

    That is the wanted one, or any. The change has the user's options, such as strides, which no
    tensor shows. A UserError if that set does not fit, none does, or sets with different images do.
    """
    if wanted is not None and not is_dataset(wanted):
        require_known("dataset", [wanted], list_datasets())
    names = ("digits", *(s.name for s in mnist.SOURCES)) if wanted is None else (wanted,)
    # Of data sets that are files, without the files.
    known = {name: SOURCES.get(name) or load_dataset(name) for name in names}
    runs, misfits = _fitting(known, found, change, folder)
    if not runs:
        have = ", ".join(
            f"{name} {as_text(of.image_shape)} in {len(of.class_names)} classes"
            for name, of in known.items()
        )
        every = {**known, **SOURCES} if wanted is None else known
        would = _suggestions(every, found, change, folder)
        raise UserError(
            f"{path} is of a network for {_images_of(found, change(found.layout.config()))}; "
            f"{have} {'has' if len(names) == 1 else 'have'} no such images"
            + (f", but {' or '.join(would)} would fit." if would else ".")
            + "".join(f"\n  {misfit}" for misfit in misfits if not would)
        )
    if len({run.image_shape for run, _ in runs}) > 1:
        fitting = ", ".join(run.config.data.dataset for run, _ in runs)
        raise UserError(
            f"{path} is of a network without decoder, which does not tell the size of its images: "
            f"say with --dataset which of {fitting} it is for."
        )
    return runs


def _fitting(
    known: Mapping[str, Source | Dataset], found: Match, change: Change, folder: Path
) -> tuple[list[tuple[Run, nnx.Module]], list[str]]:
    """Of the data sets with such images those that fit, and why the others do not."""
    runs, misfits = [], []
    for name, described in known.items():
        shape, class_names = described.image_shape, described.class_names
        # Whatever the strides are, these sizes are those of the tensors.
        channels, classes = found.sizes["c"], found.sizes["j"]
        if (shape[2], len(class_names)) != (channels, classes):
            continue
        try:
            # What the network sees of an image may be a part of it.
            seen = seen_shape(change(configure(found, name, shape, classes)), shape)
            if found.pixels not in (None, math.prod(seen)):
                continue
            config = change(configure(found, name, seen, classes))
            model = nnx.eval_shape(
                functools.partial(build_model, config, shape, classes, axis=AXIS)
            )
            weights.require_shapes(model, found.shapes, weights.LEARNED)
            runs.append((Run(folder, config, shape, class_names), model))
        except (UserError, ValueError) as error:
            misfits.append(f"with {name}: {error}")
    return runs, misfits


def _suggestions(
    known: Mapping[str, Source | Dataset], found: Match, change: Change, folder: Path
) -> list[str]:
    """What would fit after all, as options: data sets, with a crop to a square or other strides."""
    alike: dict[Any, dict[str, Source | Dataset]] = {}
    for name, of in known.items():
        alike.setdefault((of.image_shape, len(of.class_names)), {})[name] = of
    options = all_options(change(found.layout.config()))
    strides = [name for name, value in options.items() if name.endswith("stride") if value]
    tried: list[tuple[int | None, dict[str, int]]] = [(None, {})]
    tried += [(side, {}) for side in _sides(found)]
    for values in itertools.product(STRIDES, repeat=len(strides)):
        tried.append((None, dict(zip(strides, values, strict=True))))
    would: list[str] = []
    for number, (side, steps) in enumerate(tried):
        if would and number == 1:
            break  # as the network is

        def changed(
            config: FitConfig, side: int | None = side, steps: Mapping[str, int] = steps
        ) -> FitConfig:
            config = change(config)
            return config.changed(
                crop=config.data.crop if side is None else side,
                model_options={**config.model.options, **steps},
            )

        for group in alike.values():
            name = next(iter(group))
            for run, _ in _fitting({name: group[name]}, found, changed, folder)[0]:
                crop = run.config.data.crop
                option = "" if crop is None else f" --crop {crop}"
                if steps:
                    option += " --model-options " + " ".join(f"{n}={v}" for n, v in steps.items())
                # Of those with the same images and classes, the first.
                names = {of.class_names: other for other, of in reversed([*group.items()])}
                would += [f"--dataset {other}{option}" for other in reversed(names.values())]
    return would[:MOST]


def _sides(found: Match) -> Sequence[int]:
    return SIDES if found.pixels is None else (math.isqrt(found.pixels // found.sizes["c"]),)


def _images_of(found: Match, config: FitConfig) -> str:
    sizes = found.sizes
    pixels = "" if found.pixels is None else f" of {found.pixels // sizes['c']} pixels"
    channels = f"{sizes['c']} channel{'s' * (sizes['c'] > 1)}"
    capsules = ""
    if "i" in sizes:
        capsules = f", with {sizes['i']} primary capsules of {sizes['t']} types"
    options = all_options(config)
    strides = [option for option in options if option.endswith(("stride", "strides"))]
    return (
        f"images{pixels} with {channels} in {sizes['j']} classes{capsules} (with strides "
        f"{' and '.join(str(options[name]) for name in strides)}, which --model-options "
        f"{' '.join(f'{name}=N' for name in strides)} changes)"
    )
