"""`check --against`: capsjax beside a PyTorch module that somebody else wrote."""

import functools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity.check import report
from parity.check.comparison import Result
from parity.check.inputs import cut_to_size, load_images
from parity.check.pairs import DtypeName
from parity.layouts.importing import AUTO, match_state, problems
from parity.layouts.match import Match
from parity.layouts.state_files import read_state
from parity.user_module import SIDES, InputLayout
from parity.user_module.calling import (
    Call,
    CallError,
    View,
    calls,
    find_capsules,
    in_dtype,
    load_module,
)
from parity.user_module.diagnosis import Diagnosis, diagnose
from parity.user_module.sides import both_sides, capsule_sizes, compare_sides, precision
from train.data import Split
from train.system.errors import UserError
from train.system.tables import aligned

BATCHES = (7, 11, 13, 17)
"""Images; the first number that is neither the number of classes nor a dimension."""


@dataclass
class Outcome(Result):
    """The comparison of a module with capsjax, under the name of its weights' layout."""

    module: str = ""  # where it is from
    image_shape: tuple[int, int, int] = (0, 0, 0)  # height, width, channels
    call: str = ""  # how the module was called, in words
    output: str = ""  # name and shape of the compared output, in words
    notes: list[str] = field(default_factory=list)  # what else is to be known
    diagnosis: Diagnosis | None = None  # why the numbers differ, if they do


def compare_module(
    spec: str,
    path: Path,
    *,
    layout: str = AUTO,
    output: str | None = None,
    output_is: str | None = None,
    input_layout: InputLayout | None = None,
    image_size: tuple[int, int] | None = None,
    x64: bool = False,
    data_dir: Path | None = None,
    seed: int = 0,
) -> Outcome:
    """Gives a module and capsjax the same weights and images and compares what comes out.

    Arguments are those of the command `check`. The spec is `FILE.py:NAME`, the path that of the
    weights; what is None is found out. The seed decides which images are taken, and the weights in
    the sum that is differentiated. A UserError on bad input.
    """
    state = read_state(path)
    found, state = match_state(path, state, layout)
    table = found.layout
    if wrong := problems(found, state):
        raise UserError(f"{path} does not fit the layout {table.name}: {'; '.join(wrong)}.")
    dtype: DtypeName = "float64" if x64 else "float32"
    # The same weights in each precision.
    state = {name: array.astype(dtype) for name, array in state.items()}
    module = load_module(spec, state, path=path, dtype=dtype)
    dataset, split = load_images(data_dir, seed)
    sizes = [image_size] if image_size else _image_sizes(found)
    compute = functools.partial(
        both_sides,
        found=found,
        state=state,
        path=path,
        seed=seed,
        output_is=output_is or table.lengths_are,
    )
    with precision(dtype):
        call, view = _call(module, found, split, dtype, sizes, input_layout, output, spec)
        if output_is and view.what == "poses":
            raise UserError(
                f"--output-is {output_is} is of lengths, but {view.name or 'the output'} has "
                "poses: leave it out, or choose another --output."
            )
        if view.tensor.dtype != getattr(torch, dtype):
            raise UserError(
                f"{view.name or 'the output'} is {view.tensor.dtype}, though images and weights "
                f"are torch.{dtype}: compare the module without autocast, half() or double()."
            )
        _begin(dtype)
        sides = compute(call, view, dtype=dtype)
    outcome = Outcome(
        table.name,
        dtype,
        dataset,
        seed,
        module=spec,
        image_shape=call.image_shape,
        call=f"{len(call.images)} {call.how} of {'x'.join(map(str, call.image_shape))}",
        output=f"{view.name or 'its output'} {list(call.outputs[view.name].shape)} as {view.what}",
    )
    if not view.certain:
        axes = "x".join(map(str, view.tensor.shape))
        outcome.notes.append(f"axes of equal size: the output is taken as {axes} in this order")
    if sides.strides:
        flags = [f"{name}={json.dumps(value)}" for name, value in sides.strides.items()]
        outcome.notes.append(
            f"computed with {' and '.join(flags)}, as in the module and not in the layout: import "
            f"it with --model-options {' '.join(flags)}"
        )
    if sides.reason:
        outcome.notes.append(f"the gradient is not compared: {sides.reason}")
    wide = None
    if not x64:
        _begin("float64")
        with precision("float64"):
            try:
                again = call.again(in_dtype(module, "float64"), "float64")
                view = find_capsules(
                    again.outputs, view.name, capsule_sizes(found, len(call.images))
                )
                if view.tensor.dtype != torch.float64:
                    raise CallError(f"its output is {view.tensor.dtype}")
                wide = compute(again, view, dtype="float64")
            except (CallError, UserError) as error:
                outcome.notes.append(f"not compared in float64 ({error})")
    outcome.comparisons += compare_sides(sides, wide, table.name, outcome.call)
    if not outcome.passed:
        with precision("float64" if wide else dtype):
            outcome.diagnosis = diagnose(wide or sides)
    return outcome


def _begin(dtype: DtypeName) -> None:
    print(f"the module and capsjax compute in {dtype}", file=sys.stderr, flush=True)


def text(outcome: Outcome) -> str:
    """The outcome as a person reads it: a table, notes, and the verdict."""
    rows = [(c.stage.name, *report.cells(c)) for c in outcome.comparisons]
    lines = [
        f"{outcome.module} as the layout {outcome.name}, {outcome.dtype}, given {outcome.call}; "
        f"compared: {outcome.output}",
        "",
        aligned([report.COLUMNS, *rows]),
        "",
        *(f"note: {note}" for note in outcome.notes),
    ]
    if outcome.diagnosis is not None:
        lines.append(f"diagnosis: {outcome.diagnosis.sentence}.")
    verdict, how = ("PASS", "agree") if outcome.passed else ("FAIL", "differ")
    if any(c.limit is None for c in outcome.comparisons):
        how += " but for rounding" if outcome.passed else ""
    return "\n".join([*lines, f"{verdict}: the module and capsjax {how}."])


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain values; an error that is not finite is null."""
    found = outcome.diagnosis
    diagnosis = found and {
        "sentence": found.sentence,
        "tried": found.tried,
        "agreeing": [
            f._asdict() | {"switches": [switch.name for switch in f.switches]}
            for f in found.agreeing
        ],
    }
    names = ("module", "image_shape", "call", "output", "notes")
    about = {name: getattr(outcome, name) for name in names}
    return report.as_json(outcome) | about | {"diagnosis": report.finite(diagnosis)}


def _image_sizes(found: Match) -> list[tuple[int, int]]:
    """Heights and widths that the images may have, the likely ones first."""
    if found.pixels is None:
        return [(side, side) for side in SIDES]
    area = found.pixels // found.sizes["c"]
    kernel = max(found.sizes.get(f"y {layer}", 1) for layer in ("features.conv", "convolutions.0"))
    pairs = [(height, area // height) for height in range(1, area + 1) if area % height == 0]
    fitting = [pair for pair in pairs if min(pair) >= kernel]
    return sorted(fitting, key=lambda pair: (abs(math.log(pair[0] / pair[1])), -pair[0]))


def _call(
    module: torch.nn.Module,
    found: Match,
    split: Split,
    dtype: DtypeName,
    image_sizes: Sequence[tuple[int, int]],
    layout: InputLayout | None,
    output: str | None,
    spec: str,
) -> tuple[Call, View]:
    """The first call of a module whose output holds capsules, and how."""
    _, classes, dim = capsule_sizes(found, 0)
    batch = next(size for size in BATCHES if size not in (classes, dim))
    data = found.layout.config().data
    failures: list[str] = []
    misfit: UserError | None = None
    for height, width in image_sizes:
        cut = cut_to_size(split, (height, width, found.sizes["c"]))
        unit = cut.images[:batch].astype(np.float64) / 255
        images = ((unit - data.input_mean) / data.input_std).astype(dtype)
        # Digits that are no class of the module's are shown under the label of one.
        labels = cut.labels[:batch] % classes
        for call in calls(module, images, labels, classes, layout, failures):
            try:
                return call, find_capsules(call.outputs, output, capsule_sizes(found, batch))
            except UserError as error:
                misfit = misfit or error
    if misfit is not None:
        raise misfit
    # A call with arguments that it does not take says less than one that it took.
    told = next((text for text in failures if ": TypeError: " not in text), failures[0])
    raise UserError(
        f"{spec} cannot be called ({told}; {len(failures) - 1} other ways failed, too): --input "
        "and --image-shape say what it is to be given."
    )
