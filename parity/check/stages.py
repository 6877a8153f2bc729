"""The stages of a computation: all that the two networks of a pair compute for one batch."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import capsjax
from parity.check.comparison import FORWARD, GRADIENT, LOSS, TEST, Stage
from parity.check.pairs import Arrays, Pair
from parity.layouts import weights
from train.learn.objective import Objective
from train.report.recording import record

_BACKWARDS = ("decoder", "class_caps", "primary_caps", "features", "images")


Values = dict[Stage, np.ndarray]
"""Arrays by stage, images and feature maps NHWC."""


def nchw(images: np.ndarray) -> torch.Tensor:
    """Images `[B, H, W, C]` as PyTorch takes them, `[B, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def of_reference(
    pair: Pair,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    gradients: bool = True,
    training: bool = True,
) -> Values:
    """The stages of the PyTorch network, in the order in which they are computed.

    For images `[B, H, W, C]`, normalised, in the pair's dtype, and int32 labels `[B]`: the
    intermediates under the names of the reference, `capsules` and `coupling` as its result; the
    terms of the loss; and, if wanted, the gradients of their total, those of the last layer first,
    by the names of capsjax's parameters and for the images under `images`. Not in training there
    are intermediates alone: by the averages of batches, and labels decode where they do in test.
    """
    seen = nchw(images).requires_grad_(gradients and training)
    truth = torch.from_numpy(labels.astype(np.int64))
    is_shown = training or pair.reference.mask_in_test == "label"
    pair.reference.train(training)
    with torch.set_grad_enabled(gradients and training):
        outputs = pair.reference(seen, truth if is_shown else None)
        losses = pair.reference.losses(outputs, seen, truth)
    pair.reference.train()
    forward = {name: tensor.detach().numpy() for name, tensor in outputs.items()}
    if not pair.reference.parts:
        forward["conv1"] = forward["conv1"].transpose(0, 2, 3, 1)
    if "reconstruction" in forward:
        forward["reconstruction"] = forward["reconstruction"].reshape(images.shape)
    else:
        forward.pop("mask", None)  # nothing is masked
    if not training:
        return {Stage(TEST, name): array for name, array in forward.items()}
    values = {Stage(FORWARD, name): array for name, array in forward.items()}
    values |= {Stage(LOSS, name): tensor.detach().numpy() for name, tensor in losses.items()}
    if gradients:
        arrays = pair.compared(gradients_of(pair, losses["total"]))
        assert seen.grad is not None
        arrays["images"] = seen.grad.permute(0, 2, 3, 1).numpy()
        values |= {Stage(GRADIENT, name): arrays[name] for name in sorted(arrays, key=_backwards)}
    return values


def gradients_of(pair: Pair, loss: torch.Tensor) -> Arrays:
    """Goes backwards through the reference; the gradients by the names of capsjax's parameters."""
    pair.reference.zero_grad()
    loss.backward()
    return pair.to_capsjax(
        {
            name: np.zeros(parameter.shape, pair.dtype)
            if parameter.grad is None
            else parameter.grad.numpy()
            for name, parameter in pair.reference.named_parameters()
        }
    )


def of_capsjax(
    pair: Pair,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    gradients: bool = True,
    training: bool = True,
) -> Values:
    """The stages of the capsjax network, under the names of `of_reference`, in any order.

    Arguments as there. The intermediates are what the parts of the model received and returned
    while the model was called; those of a routing are traced again from the votes.
    """
    graphdef, params, rest = nnx.split(pair.model, nnx.Param, ...)  # type: ignore[misc]
    state = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    scale = 1.0 if pair.reference.reconstruction_over_pixels == "sum" else 1 / images[0].size
    settings = scale, gradients and training, training
    fixed = graphdef, pair.objective, pair.reference.parts, *settings
    stages, losses, arrays = jax.device_get(_compute(fixed, state, images, labels))
    if not training:
        return {Stage(TEST, name): array for name, array in stages.items()}
    groups = {FORWARD: stages, LOSS: losses, GRADIENT: pair.compared(arrays)}
    return {Stage(group, name): groups[group][name] for group in groups for name in groups[group]}


@functools.partial(jax.jit, static_argnames="fixed")
def _compute(
    fixed: tuple[nnx.GraphDef, Objective, tuple[str, ...], float, bool, bool],
    state: tuple[Any, Any],
    images: jax.Array,
    labels: jax.Array,
) -> tuple[dict, dict, dict]:
    """Intermediates, losses (reconstruction by a scale) and gradients, if wanted, by name."""
    (graphdef, objective, parts, scale, gradients, training), (params, rest) = fixed, state

    def run(params: Any, images: jax.Array) -> tuple[jax.Array, tuple[dict, dict]]:
        model = nnx.merge(graphdef, params, rest, copy=True)
        stages, output = _recorded_call(model, parts, objective, images, labels, training)
        terms = objective.losses(output, images, labels)
        losses = {
            name.removesuffix("_loss"): objective.settings.margin_weight * terms[name]
            for name in ("margin_loss", "spread_loss", "cross_entropy")
            if name in terms
        }
        if "reconstruction_loss" in terms:
            losses["reconstruction"] = scale * terms["reconstruction_loss"]
        losses["total"] = jnp.mean(terms["loss"])
        return losses["total"], (stages, losses)

    if not gradients:
        _, (stages, losses) = run(params, images)
        return stages, losses, {}
    (of_params, of_images), (stages, losses) = jax.grad(run, argnums=(0, 1), has_aux=True)(
        params, images
    )
    return stages, losses, {**weights.by_name(of_params), "images": of_images}


def _recorded_call(
    model: Any,
    parts: Sequence[str],
    objective: Objective,
    images: jax.Array,
    labels: jax.Array,
    training: bool,
) -> tuple[dict[str, jax.Array], Any]:
    """Calls a model, not to be used afterwards: its intermediates, its output."""
    (model.train if training else model.eval)()  # before its parts are replaced
    of_capsnet = () if parts else ("features", "primary_caps", "class_caps", "decoder")
    layers = {name: layer for name in of_capsnet if (layer := getattr(model, name)) is not None}
    recorded = record(model, [*parts, *layers])
    output = objective.apply(model, images, labels, training=training)
    stages: dict[str, jax.Array] = {}
    for name in parts:
        stages |= _named_results(name.replace(".", "_"), recorded[name].result)
    if layers:
        conv1, primary = recorded["features"].result, recorded["primary_caps"].result
        u_hat = layers["class_caps"].votes(primary.pose)
        stages |= {
            "conv1": conv1,
            "primary_s": layers["primary_caps"].project(conv1),
            "primary_u": primary.pose,
            "u_hat": u_hat,
        }
        routing = layers["class_caps"].routing
        trace = capsjax.trace(routing, u_hat, primary.activation, pose=primary.pose)
        for symbol, iterations in trace._asdict().items():
            stages |= {f"{symbol}{n + 1}": iterations[:, n] for n in range(iterations.shape[1])}
    if output.capsules is not None and output.coupling is not None:
        stages |= {"capsules": output.capsules.pose, "coupling": output.coupling}
    stages["lengths"] = output.lengths
    if output.logits is not None:
        stages["logits"] = output.logits
    if output.reconstruction is not None:
        stages["mask"] = recorded["decoder"].arguments[1]
        stages["reconstruction"] = output.reconstruction
    return stages, output


def _named_results(name: str, result: Any) -> dict[str, jax.Array]:
    if isinstance(result, capsjax.Capsules):
        return {f"{name}_{field}": array for field, array in result._asdict().items()}
    if isinstance(result, tuple):
        capsules, coupling = result
        return {**_named_results(name, capsules), f"{name}_coupling": coupling}
    return {name: result}


def _backwards(parameter: str) -> tuple[int, list[int], str]:
    """A sort key of gradients: those of the last layer first."""
    part, *rest = parameter.split(".")
    layers = [-int(word) for word in rest if word.isdigit()]
    # Of another model, all parts stand between the decoder and the images.
    return _BACKWARDS.index(part) if part in _BACKWARDS else 1, layers, parameter
