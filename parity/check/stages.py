"""Everything that the two networks of a pair compute for one batch, stage by stage."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import capsjax
from parity.check import weights
from parity.check.pairs import Arrays, Pair
from train.learn.objective import Objective
from train.report.recording import record

FORWARD, LOSS, GRADIENT = "forward", "loss", "gradient"
ADAM, TRAINING = "Adam alone", "training"
LATER_GROUPS = (ADAM, TRAINING)
IN_A_STEP = ("first moment", "second moment", "parameters", "loss")
BEFORE_ROUTING = ("conv1", "primary_s", "primary_u", "u_hat")
AFTER_ROUTING = ("capsules", "coupling", "lengths", "logits", "mask", "reconstruction")
LOSSES = ("margin", "spread", "cross_entropy", "reconstruction", "total")
DYNAMIC = ("b", "c", "s", "v")
_ITERATED = re.compile(r"(?P<symbol>[a-zA-Z_]*[a-zA-Z])(?P<iteration>\d+)")
PARTS_BACKWARDS = ("decoder", "class_caps", "primary_caps", "features", "images")


class Stage(NamedTuple):
    """What is compared at once: an array that both networks compute.

    Attributes:
        group: the part of the computation that it belongs to.
        name: the intermediate, loss term or parameter.
    """

    group: str
    name: str


Values = dict[Stage, np.ndarray]
"""The arrays in the order in which they were computed, images and feature maps NHWC."""


def nchw(images: np.ndarray) -> torch.Tensor:
    """Images `[B, H, W, C]` as PyTorch takes them, `[B, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def of_reference(
    pair: Pair, images: np.ndarray, labels: np.ndarray, *, gradients: bool = True
) -> Values:
    """What the PyTorch network computes.

    Args:
        pair: the networks.
        images: `[B, H, W, C]`, normalised, in the pair's dtype.
        labels: int32 `[B]`.
        gradients: whether gradients of the total loss are taken, too.

    Returns:
        The intermediates under the names of the reference, `capsules` and `coupling` as what it
        returns as its result, the terms of the loss, and the gradients, those of the last layer
        first, by the names of capsjax's parameters and for the images under `images`.
    """
    device = next(pair.reference.parameters()).device
    seen = nchw(images).to(device).requires_grad_(gradients)
    truth = torch.from_numpy(labels.astype(np.int64)).to(device)
    with torch.set_grad_enabled(gradients):
        outputs = pair.reference(seen, truth)
        losses = pair.reference.losses(outputs, seen, truth)
    values = {Stage(FORWARD, name): _numpy(tensor) for name, tensor in outputs.items()}
    if not pair.parts:
        values[Stage(FORWARD, "conv1")] = _numpy(outputs["conv1"].permute(0, 2, 3, 1))
    if "reconstruction" in outputs:
        reconstruction = values[Stage(FORWARD, "reconstruction")]
        values[Stage(FORWARD, "reconstruction")] = reconstruction.reshape(images.shape)
    else:
        values.pop(Stage(FORWARD, "mask"), None)  # nothing is masked
    values |= {Stage(LOSS, name): _numpy(tensor) for name, tensor in losses.items()}
    if gradients:
        by_parameter = pair.compared(gradients_of(pair, losses["total"]))
        assert seen.grad is not None
        by_parameter["images"] = _numpy(seen.grad.permute(0, 2, 3, 1))
        values |= {Stage(GRADIENT, name): array for name, array in by_parameter.items()}
    return _in_order(values, symbols_in(values))


def gradients_of(pair: Pair, loss: torch.Tensor) -> Arrays:
    """Goes backwards through the reference; the gradients by the names of capsjax's parameters."""
    pair.reference.zero_grad()
    loss.backward()
    return pair.to_capsjax(
        {
            name: np.zeros(parameter.shape, pair.dtype)
            if parameter.grad is None
            else _numpy(parameter.grad)
            for name, parameter in pair.reference.named_parameters()
        }
    )


def of_capsjax(
    pair: Pair, images: np.ndarray, labels: np.ndarray, *, gradients: bool = True
) -> Values:
    """What the capsjax network computes, under the names of `of_reference`.

    Arguments as there. The intermediates are what the parts of the model received and returned
    while the model was called; `b`, `c`, `s` and `v` are traced again from the votes.
    """
    graphdef, params, rest = nnx.split(pair.model, nnx.Param, ...)  # type: ignore[misc]
    scale = 1.0 if pair.reconstruction == "sum" else 1 / images[0].size
    compute = _compiled(graphdef, pair.objective, scale, gradients, pair.parts)
    stages, losses, by_parameter = jax.device_get(
        compute(nnx.to_pure_dict(params), nnx.to_pure_dict(rest), images, labels)
    )
    values = {Stage(FORWARD, name): array for name, array in stages.items()}
    values |= {Stage(LOSS, name): array for name, array in losses.items()}
    values |= {Stage(GRADIENT, name): array for name, array in pair.compared(by_parameter).items()}
    # The dicts of a jitted function come back sorted by name.
    symbols = symbols_in(values) if pair.parts else _trace_fields(pair.model)
    return _in_order(values, symbols)


def _trace_fields(model: Any) -> Sequence[str]:
    """The symbols of what the routing of a model computes in an iteration, in that order."""
    caps = model.class_caps
    in_capsules, out_capsules, out_dim, in_dim = caps.kernel.shape
    trace = jax.eval_shape(
        functools.partial(capsjax.trace, caps.routing),
        jnp.zeros((1, in_capsules, out_capsules, out_dim)),
        jnp.zeros((1, in_capsules)),
        pose=jnp.zeros((1, in_capsules, in_dim)),
    )
    return trace._fields


@functools.lru_cache(maxsize=32)
def _compiled(
    graphdef: nnx.GraphDef,
    objective: Objective,
    reconstruction_scale: float,
    gradients: bool,
    parts: tuple[str, ...],
) -> Callable[..., tuple[dict, dict, dict]]:
    def run(
        params: Any, rest: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, tuple[dict, dict]]:
        model = nnx.merge(graphdef, params, rest, copy=True)
        watch = functools.partial(watched_parts, parts) if parts else watched_call
        stages, output = watch(model, objective, images, labels)
        terms = objective.losses(output, images, labels)
        losses = {
            name.removesuffix("_loss"): objective.settings.margin_weight * terms[name]
            for name in ("margin_loss", "spread_loss", "cross_entropy")
            if name in terms
        }
        if "reconstruction_loss" in terms:
            losses["reconstruction"] = reconstruction_scale * terms["reconstruction_loss"]
        losses["total"] = jnp.mean(terms["loss"])
        return losses["total"], (stages, losses)

    @jax.jit
    def compute(
        params: Any, rest: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[dict, dict, dict]:
        if not gradients:
            _, (stages, losses) = run(params, rest, images, labels)
            return stages, losses, {}
        (of_params, of_images), (stages, losses) = jax.grad(run, argnums=(0, 2), has_aux=True)(
            params, rest, images, labels
        )
        return stages, losses, {**weights.by_name(of_params), "images": of_images}

    return compute


def watched_call(
    model: Any, objective: Objective, images: jax.Array, labels: jax.Array
) -> tuple[dict[str, jax.Array], Any]:
    """Calls a `CapsNet` as in training; returns its intermediates and its output.

    Args:
        model: the network, which is not to be used afterwards.
        objective: knows which capsule the decoder sees.
        images: `[B, H, W, C]`.
        labels: int32 `[B]`.
    """
    primary_caps, class_caps = model.primary_caps, model.class_caps
    parts = ["features", "primary_caps", "class_caps"]
    if model.decoder is not None:
        parts.append("decoder")
    watched = record(model, parts)
    output = objective.apply(model, images, labels, training=True)

    conv1 = watched["features"].result
    primary = watched["primary_caps"].result
    u_hat = class_caps.votes(primary.pose)
    stages = {
        "conv1": conv1,
        "primary_s": primary_caps.project(conv1),
        "primary_u": primary.pose,
        "u_hat": u_hat,
    }
    trace = capsjax.trace(class_caps.routing, u_hat, primary.activation, pose=primary.pose)
    for index in range(trace[0].shape[1]):
        stages |= {
            f"{symbol}{index + 1}": getattr(trace, symbol)[:, index] for symbol in trace._fields
        }
    assert output.capsules is not None
    stages |= {
        "capsules": output.capsules.pose,
        "coupling": output.coupling,
        "lengths": output.lengths,
    }
    if "decoder" in watched:
        stages["mask"] = watched["decoder"].arguments[1]
        stages["reconstruction"] = output.reconstruction
    return stages, output


def watched_parts(
    parts: Sequence[str], model: Any, objective: Objective, images: jax.Array, labels: jax.Array
) -> tuple[dict[str, jax.Array], Any]:
    """Calls a model as in training; returns what its parts returned, and its output.

    Args:
        parts: attributes of the model, with dots for members.
        model: the network, which is not to be used afterwards.
        objective: knows how a model is called in training.
        images: `[B, H, W, C]`.
        labels: int32 `[B]`.

    Returns:
        The stages under the names that `ModelReference` has for them.
    """
    model.train()
    watched = record(model, parts)
    output = objective.apply(model, images, labels, training=True)
    stages: dict[str, jax.Array] = {}
    for name, part in watched.items():
        stages |= _named_results(name.replace(".", "_"), part.result)
    if output.capsules is not None:
        assert output.coupling is not None
        stages |= {"capsules": output.capsules.pose, "coupling": output.coupling}
    stages["lengths"] = output.lengths
    if output.logits is not None:
        stages["logits"] = output.logits
    if output.reconstruction is not None:
        stages["mask"] = watched["decoder"].arguments[1]
        stages["reconstruction"] = output.reconstruction
    return stages, output


def _named_results(name: str, result: Any) -> dict[str, jax.Array]:
    if isinstance(result, capsjax.Capsules):
        return {f"{name}_{field}": array for field, array in result._asdict().items()}
    if isinstance(result, tuple):
        capsules, coupling = result
        return {**_named_results(name, capsules), f"{name}_coupling": coupling}
    return {name: result}


def symbols_in(stages: Iterable[Stage]) -> list[str]:
    """The symbols of what a routing computes in an iteration, in order of their appearance.

    What the parts of another model return counts as a symbol without an iteration.
    """
    known = (*BEFORE_ROUTING, *AFTER_ROUTING)
    names = (s.name for s in stages if s.group == FORWARD and s.name not in known)
    return list(dict.fromkeys(_iterated(name)[1] for name in names))


def computation_order(stage: Stage, symbols: Sequence[str] = DYNAMIC) -> tuple:
    """A sort key: stages in the order in which they are computed, gradients from the end.

    Args:
        stage: any.
        symbols: of what the routing computes in an iteration, in that order.
    """
    if stage.group == FORWARD:
        return 0, *_forward_order(stage.name, symbols)
    if stage.group == LOSS:
        return 1, LOSSES.index(stage.name)
    if stage.group == GRADIENT:
        part, *rest = stage.name.split(".")
        layers = [-int(word) for word in rest if word.isdigit()]
        # Of another model, all parts stand between the decoder and the images.
        place = PARTS_BACKWARDS.index(part) if part in PARTS_BACKWARDS else 1
        return 2, place, layers, stage.name
    what = next(i for i, prefix in enumerate(IN_A_STEP) if stage.name.startswith(prefix))
    step = next(int(word) for word in stage.name.split() if word.isdigit())
    return 3, LATER_GROUPS.index(stage.group), stage.name.startswith("loss"), step, what


def _forward_order(name: str, symbols: Sequence[str]) -> tuple[int, ...]:
    if name in BEFORE_ROUTING:
        return 0, BEFORE_ROUTING.index(name)
    if name in AFTER_ROUTING:
        return 2, AFTER_ROUTING.index(name)
    iteration, symbol = _iterated(name)
    return 1, iteration, list(symbols).index(symbol)


def _iterated(name: str) -> tuple[int, str]:
    """The iteration and the symbol of a stage: `b2` is of the second one."""
    match = _ITERATED.fullmatch(name)
    return (int(match["iteration"]), match["symbol"]) if match else (0, name)


def _in_order(values: Values, symbols: Sequence[str]) -> Values:
    return {s: values[s] for s in sorted(values, key=lambda s: computation_order(s, symbols))}


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
