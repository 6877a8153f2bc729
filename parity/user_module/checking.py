"""`check --against`: capsjax beside a PyTorch module that somebody else wrote."""

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from parity.check import report, tolerance
from parity.check.arithmetic import exact
from parity.check.batch import capsnet_lengths
from parity.check.comparison import FORWARD, GRADIENT, Comparison, Result, Stage, error_between
from parity.check.inputs import cut_to_size, load_images
from parity.check.pairs import DtypeName
from parity.layouts import weights
from parity.layouts.importing import AUTO, configure, match_state, problems
from parity.layouts.match import Match
from parity.layouts.state_files import State, read_state
from parity.user_module import SIDES, InputLayout
from parity.user_module.calling import Call, View, What, calls, find_capsules, load_module
from parity.user_module.diagnosis import Diagnosis, Target, diagnose
from train.data import Split
from train.learn.network import build_model
from train.system.errors import UserError, first_line
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
    dtype: DtypeName = "float64" if x64 else "float32"
    state = read_state(path)
    found, state = match_state(path, state, layout)
    table = found.layout
    if wrong := problems(found, state):
        raise UserError(f"{path} does not fit the layout {table.name}: {'; '.join(wrong)}.")
    if table.model != "capsnet":
        raise UserError(
            f"the layout {table.name} is of {table.model}, and --against compares modules with "
            f"capsnet alone: python -m parity check --layout {table.name} proves the layout."
        )
    module = load_module(spec, state, path=path, dtype=dtype)
    dataset, split = load_images(data_dir, seed)
    sizes = [image_size] if image_size else _image_sizes(found)
    with exact(x64=x64), contextlib.ExitStack() as stack:
        # Tensors that a module creates without a dtype have that of its parameters.
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(getattr(torch, dtype))
        call, view = _call(module, found, split, dtype, sizes, input_layout, output, spec)
        model = _model(call, found, state, path, dtype)
        images, theirs = call.images.detach().numpy(), view.tensor.detach().numpy()
        cotangent = np.random.default_rng(seed).normal(size=theirs.shape).astype(theirs.dtype)
        gradient, reason = _module_gradient(view.tensor, call.images, cotangent)
        lengths = capsnet_lengths(model, len(images))
        forward_limit = tolerance.limit("forward", dtype, lengths[FORWARD])
        gradient_limit = tolerance.limit("gradient", dtype, lengths[GRADIENT])
        ours, our_gradient = _capsjax(*nnx.split(model), view.what, images, cotangent)
        how = f"{len(images)} {call.how} of {'x'.join(map(str, call.image_shape))}"
        shape = list(call.outputs[view.name].shape)
        outcome = Outcome(
            table.name,
            dtype,
            dataset,
            seed,
            module=spec,
            image_shape=call.image_shape,
            call=how,
            output=f"{view.name or 'its output'} {shape} as {view.what}",
        )
        compared = [(Stage(FORWARD, view.what), ours, theirs, forward_limit)]
        if gradient is not None:
            stage = Stage(GRADIENT, "gradient of the images")
            compared.append((stage, our_gradient, gradient, gradient_limit))
        for stage, actual, truth, limit in compared:
            error = error_between(np.asarray(actual), truth)
            outcome.comparisons.append(Comparison(stage, error, limit, table.name, how))
        if not view.certain:
            axes = "x".join(map(str, view.tensor.shape))
            outcome.notes.append(f"axes of equal size: the output is taken as {axes} in this order")
        if reason:
            outcome.notes.append(f"the gradient is not compared: {reason}")
        if not outcome.passed:
            target = Target(view.what, theirs, cotangent, gradient, forward_limit, gradient_limit)
            outcome.diagnosis = diagnose(model, images, target)
        return outcome


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
    area, kernel = found.pixels // found.sizes["c"], found.sizes["y features.conv"]
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
    classes, dim = found.sizes["j"], found.sizes["d"]
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
                return call, find_capsules(call.outputs, output, (batch, classes, dim))
            except UserError as error:
                misfit = misfit or error
    if misfit is not None:
        raise misfit
    shown = "; ".join(failures[:3]) + ("; ..." if len(failures) > 3 else "")
    raise UserError(
        f"{spec} cannot be called ({shown}): --input and --image-shape say what it is to be given."
    )


def _model(call: Call, found: Match, state: State, path: Path, dtype: DtypeName) -> nnx.Module:
    """A capsjax network with a module's weights, and with the strides of its call."""
    classes = found.sizes["j"]
    config = configure(found, "digits", call.image_shape, classes)
    options = {**config.model.options, **_strides(call, found)}
    config = config.changed(model_options=options, dtype=dtype, param_dtype=dtype)
    model = nnx.eval_shape(lambda: build_model(config, call.image_shape, classes))
    try:
        weights.load(model, found.to_capsjax(state))
    except ValueError as error:
        strides = ", ".join(
            f"{name} = {options.get(name, default)}"
            for name, default in (("conv_stride", 1), ("primary_stride", 2))
        )
        raise UserError(
            f"{path} does not fit capsjax's network for images of "
            f"{'x'.join(map(str, call.image_shape))} with {strides}: {error}; --image-shape and, "
            "in a layout of your own, model_options say otherwise."
        ) from error
    return model


def _strides(call: Call, found: Match) -> dict[str, int]:
    """The strides that the module's convolutions were seen to have."""
    sizes = found.sizes
    kernels = {
        "conv_stride": (sizes["f"], sizes["c"], sizes["y features.conv"]),
        "primary_stride": (None, sizes["f"], sizes["y primary_caps.conv"]),
    }
    # The first convolution is the first that was called, that of the capsules the last.
    called = [*call.convolutions[:1], *call.convolutions[1:][-1:]]
    seen = {}
    for (shape, strides), (name, (out, *rest)) in zip(called, kernels.items(), strict=False):
        if list(shape[1:3]) == rest and out in (None, shape[0]) and len(set(strides)) == 1:
            seen[name] = strides[0]
    return seen


def _module_gradient(
    output: torch.Tensor, images: torch.Tensor, cotangent: np.ndarray
) -> tuple[np.ndarray | None, str]:
    """The gradient of the weighted sum of the output, or why there is none."""
    gradient = None
    if output.requires_grad:
        weighted = (output * torch.from_numpy(cotangent)).sum()
        try:
            (gradient,) = torch.autograd.grad(weighted, images, allow_unused=True)
        except RuntimeError as error:  # an operation without derivative, or a change in place
            return None, f"the module is not differentiable ({first_line(error)})"
    if gradient is None:
        return None, "the module's output is cut off from its images"
    return gradient.numpy(), ""


@functools.partial(jax.jit, static_argnames=("graphdef", "what"))
def _capsjax(
    graphdef: nnx.GraphDef, state: Any, what: What, images: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The output of a `CapsNet` that is compared, and its gradient."""

    def weighted(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        returned = nnx.merge(graphdef, state)(images)
        output = returned.lengths if what == "lengths" else returned.capsules.pose
        return jnp.sum(output * cotangent), output

    gradient, output = jax.grad(weighted, has_aux=True)(images)
    return output, gradient
