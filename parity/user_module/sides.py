"""A module and capsjax side by side: what both compute of the same images, in one precision."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import capsjax
from parity.check import tolerance
from parity.check.arithmetic import exact
from parity.check.batch import capsnet_lengths
from parity.check.comparison import FORWARD, GRADIENT, Comparison, Stage, error_between
from parity.check.pairs import DtypeName
from parity.layouts import weights
from parity.layouts.data_sets import configure
from parity.layouts.match import Match
from parity.layouts.state_files import State
from parity.layouts.table import all_options
from parity.user_module.calling import Call, View, What
from parity.user_module.dialect import as_output
from train.config.fit_config import FitConfig
from train.data.formats.images import as_text
from train.learn.network import build_model
from train.system.errors import UserError, first_line

MOST_ROUNDING = 16
"""How many times as far from its own float64 as capsjax, or the limit, rounding takes a module.

What it computes in bfloat16 or with TF32 products is thousands of times as far.
"""


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Both frameworks compute exactly in float32 or float64 while the body runs."""
    before = torch.get_default_dtype()
    with exact(x64=dtype == "float64"):
        try:
            # Tensors that a module creates without a dtype have that of its parameters.
            torch.set_default_dtype(getattr(torch, dtype))
            yield
        finally:
            torch.set_default_dtype(before)


@dataclass(frozen=True)
class Sides:
    """What a module and capsjax computed, and the largest relative errors that are accepted.

    Outputs are lengths `[B, J]`, shown as `output_is` says, or poses `[B, J, D]`; gradients, by the
    images `[B, H, W, C]`, are
    those of the sum of the outputs weighted by the cotangent. The module has none where there is a
    reason for that.
    """

    dtype: DtypeName
    model: Any
    images: np.ndarray
    what: What
    output_is: str
    cotangent: np.ndarray
    theirs: np.ndarray
    ours: np.ndarray
    their_gradient: np.ndarray | None
    our_gradient: np.ndarray
    reason: str
    forward_limit: float
    gradient_limit: float
    # Strides that the module was seen to have, and the layout does not, by the names of options.
    strides: Mapping[str, Any] = field(default_factory=dict)

    def within(self, limit: float) -> "Sides":
        """The same with another limit of the outputs' error, where that is known."""
        return replace(self, forward_limit=limit)

    def stages(self) -> Iterator[tuple[Stage, np.ndarray, np.ndarray, float]]:
        """What is compared: capsjax's numbers, the module's, and the limit of their error."""
        stage = Stage(FORWARD, f"{self.what} in {self.dtype}")
        yield stage, self.ours, self.theirs, self.forward_limit
        if self.their_gradient is not None:
            stage = Stage(GRADIENT, f"gradient of the images in {self.dtype}")
            yield stage, self.our_gradient, self.their_gradient, self.gradient_limit


def both_sides(
    call: Call,
    view: View,
    found: Match,
    state: State,
    path: Path,
    *,
    dtype: DtypeName,
    output_is: str,
    seed: int,
) -> Sides:
    """Computes with capsjax what a module was called for, and the gradients of both.

    The weights are those of the state in which the layout was found. The seed is of the cotangent,
    which has the same values in each dtype. A UserError if the weights do not fit the images.
    """
    config = configure(found, "digits", call.image_shape, found.sizes["j"])
    strides, of_layout = _strides(call, found), all_options(config)
    options = {**config.model.options, **strides}
    config = config.changed(model_options=options)
    try:
        model = network(config, call.image_shape, found, state, dtype)
    except ValueError as error:
        raise UserError(
            f"{path} does not fit capsjax's network for images of {as_text(call.image_shape)} with "
            f"{_shown_strides(config)}: {error}; --image-shape and, in a layout of your own, "
            "model_options say otherwise."
        ) from error
    images, theirs = call.images.detach().numpy(), view.tensor.detach().numpy()
    cotangent = np.random.default_rng(seed).normal(size=theirs.shape).astype(np.float32)
    cotangent = cotangent.astype(theirs.dtype)
    their_gradient, reason = _module_gradient(view.tensor, call.images, cotangent)
    sides = with_output(model, images, view.what, output_is, theirs, cotangent)
    others = {n: value for n, value in strides.items() if _listed(of_layout[n]) != value}
    return replace(sides, their_gradient=their_gradient, reason=reason, strides=others)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def with_output(
    model: Any,
    images: np.ndarray,
    what: What,
    output_is: str,
    theirs: np.ndarray,
    cotangent: np.ndarray | None = None,
) -> Sides:
    """Both sides where the output of the other one is known, of its dtype; it has no gradient.

    The images are as the network sees them; a cotangent, for capsjax's gradient, is one by default.
    """
    dtype: DtypeName = "float64" if theirs.dtype == np.float64 else "float32"
    cotangent = np.ones_like(theirs) if cotangent is None else cotangent
    ours, gradient = _capsjax(*nnx.split(model), what, output_is, images, cotangent)
    lengths = _longest_sums(model, len(images))
    return Sides(
        dtype,
        model,
        images,
        what,
        output_is,
        cotangent,
        theirs,
        np.asarray(ours),
        None,
        np.asarray(gradient),
        "",
        tolerance.limit("forward", dtype, lengths[FORWARD]),
        tolerance.limit("gradient", dtype, lengths[GRADIENT]),
    )


def network(
    config: FitConfig, image_shape: Sequence[int], found: Match, state: State, dtype: DtypeName
) -> Any:
    """The network of a configuration in a dtype, with the weights in which a layout was found.

    It is set to evaluation. A ValueError if the weights do not fit it.
    """
    config = config.changed(dtype=dtype, param_dtype=dtype)
    model = nnx.eval_shape(lambda: build_model(config, image_shape, found.sizes["j"]))
    weights.load(model, found.to_capsjax(state), weights.LEARNED)
    model.eval()
    return model


def capsule_sizes(found: Match, batch: int) -> tuple[int, int, int]:
    """Batch, classes, and dimension of the class capsules."""
    sizes = found.sizes
    return batch, sizes["j"], sizes["d"] if "d" in sizes else sizes["p"] * sizes["q"]


def _longest_sums(model: Any, batch: int) -> dict[str, int]:
    """Terms of the longest sums of a network on a batch, forwards and in its gradients."""
    if isinstance(model, capsjax.CapsNet):
        return capsnet_lengths(model, batch)
    convolutions = [layer for _, layer in nnx.iter_modules(model) if isinstance(layer, nnx.Conv)]
    sums = [int(np.prod(layer.kernel.shape[:3])) for layer in convolutions]
    images = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
    coupling = jax.eval_shape(lambda model, images: model(images).coupling, model, images)
    forward = max(*sums, coupling.shape[1])
    return {FORWARD: forward, GRADIENT: max(forward, batch * int(np.prod(model.image_shape[:2])))}


def compare_sides(narrow: Sides, wide: Sides | None, size: str, case: str) -> list[Comparison]:
    """Compares what both sides computed, also in float64 if that is given, stage by stage.

    What is beyond its limit in float32, but not in float64, is information where both are about as
    far from the module in float64: then it is rounding.
    """
    found = _compared(narrow, size, case)
    if wide is None:
        return found
    truths = {stage.group: theirs for stage, _, theirs, _ in wide.stages()}
    of_wide = _compared(wide, size, case)
    agrees = {comparison.stage.group: comparison.held for comparison in of_wide}
    for number, (stage, ours, theirs, limit) in enumerate(narrow.stages()):
        if found[number].held or not agrees.get(stage.group):
            continue
        itself, other = (error_between(side, truths[stage.group]) for side in (theirs, ours))
        is_coarse = itself.relative > MOST_ROUNDING * max(limit, other.relative)
        if tolerance.is_rounding(itself.relative, other.relative, limit) and not is_coarse:
            note = (
                f"rounding: from float64 the module is {itself.relative:.1e} away, and capsjax "
                f"{other.relative:.1e}"
            )
            error = found[number].error._replace(note=note)
            found[number] = found[number]._replace(error=error, limit=None)
    return found + of_wide


def _compared(sides: Sides, size: str, case: str) -> list[Comparison]:
    return [
        Comparison(stage, error_between(ours, theirs), limit, size, case)
        for stage, ours, theirs, limit in sides.stages()
    ]


def _shown_strides(config: FitConfig) -> str:
    options = all_options(config)
    return ", ".join(f"{n} = {options[n]}" for n in options if n.endswith(("stride", "strides")))


def _strides(call: Call, found: Match) -> dict[str, Any]:
    """The strides that the module's convolutions were seen to have."""
    sizes, called = found.sizes, call.convolutions
    if found.layout.model == "efficient_capsnet":
        strides = [of[0] for _, of in called if len(set(of)) == 1]
        depth = len(found.model_options()["features"])
        if len(strides) != depth + 1:
            return {}
        return {"strides": strides[:depth], "primary_stride": strides[depth]}
    kernels: dict[str, tuple[int | None, ...]] = {
        "conv_stride": (sizes["f"], sizes["c"], sizes["y features.conv"])
    }
    if found.layout.model == "capsnet":
        kernels["primary_stride"] = (None, sizes["f"], sizes["y primary_caps.conv"])
    # The first convolution is the first that was called, that of the capsules the last.
    called = [*called[:1], *called[1:][-1:]]
    seen = {}
    for (shape, of), (name, (out, *rest)) in zip(called, kernels.items(), strict=False):
        if list(shape[1:3]) == rest and out in (None, shape[0]) and len(set(of)) == 1:
            seen[name] = of[0]
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


@functools.partial(jax.jit, static_argnames=("graphdef", "what", "output_is"))
def _capsjax(
    graphdef: nnx.GraphDef,
    state: Any,
    what: What,
    output_is: str,
    images: jax.Array,
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The output of a `CapsNet` that is compared, and its gradient."""

    def weighted(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        returned = nnx.merge(graphdef, state)(images)
        output = returned.capsules.pose
        if what == "lengths":
            output = as_output(returned.lengths, output_is)
        return jnp.sum(output * cotangent), output

    gradient, output = jax.grad(weighted, has_aux=True)(images)
    return output, gradient
