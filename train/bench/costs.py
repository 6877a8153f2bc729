"""What a program costs by XLA's analysis, its memory and its arithmetic, and the memory there is.

The work of a network is counted in its program as it would be lowered for an accelerator, so that
it is the same on every machine, however that computes it. XLA counts every addition, multiplication
and function of an element as one operation; convolutions without their padding. Of a loop it counts
one turn, to which the others are added here. The count of a compiled program is left as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import jaxpr_as_fun
from jax.interpreters import partial_eval

from train.config.fit_config import FitConfig
from train.data import Dataset
from train.learn.network import build_model, seen_shape
from train.learn.objective import Objective
from train.system.machine import physical_bytes, process_peak_bytes


def footprint(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes that a program takes on each device, by the compiler's analysis.

    Those of its `arguments`, of its `outputs`, of the `temporaries` in between, of the outputs that
    are `aliased`, in the place of donated arguments, and the `total` of all at once.
    """
    analysis: Any = compiled.memory_analysis()
    sizes = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "aliased": analysis.alias_size_in_bytes,
    }
    return {**sizes, "total": sum(sizes.values()) - 2 * sizes["aliased"]}


def room(devices: Sequence[Any]) -> int:
    """Bytes that a program may take on each device; CPU devices share the machine's."""
    return min(_known(devices, "bytes_limit"), default=physical_bytes() // len(devices))


def peak_bytes(devices: Sequence[Any]) -> int:
    """The most memory in use so far on the fullest device; on a CPU, by this process."""
    return max(_known(devices, "peak_bytes_in_use"), default=process_peak_bytes())


def _known(devices: Sequence[Any], name: str) -> list[int]:
    found = [device.memory_stats() for device in devices]
    return [statistics[name] for statistics in found if statistics and name in statistics]


def compiled_count(compiled: jax.stages.Compiled, name: str = "flops") -> float | None:
    """XLA's count of "flops" or of "bytes accessed" on one device; None where it gives none."""
    analysis = compiled.cost_analysis()
    value = analysis.get(name) if isinstance(analysis, dict) else None
    return None if value is None or value < 0 else float(value)


def flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Operations of a function on an accelerator, every turn of its loops counted.

    Args:
        function: what to trace; it is not run, and not compiled.
        *arguments: arrays or `jax.ShapeDtypeStruct`.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    # A gradient is traced with results that nobody uses: of the forward pass, of the images.
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _one_turn_flops(function, *arguments) + _other_turns_flops(used)


def _one_turn_flops(function: Callable[..., Any], *arguments: Any) -> float:
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",))
    analysis: Any = lowered.cost_analysis()
    return analysis.get("flops", 0.0)


def _other_turns_flops(jaxpr: Any) -> float:
    """What XLA leaves out: all turns of a loop but those that the program spells out."""
    total = 0.0
    for equation in jaxpr.eqns:
        parameters = equation.params
        inner = [getattr(p, "jaxpr", p) for p in jax.tree.leaves(list(parameters.values()))]
        inside = [_other_turns_flops(p) for p in inner if hasattr(p, "eqns")]
        if equation.primitive.name == "scan":
            length, unroll, body = (parameters[name] for name in ("length", "unroll", "jaxpr"))
            shapes = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in body.in_avals)
            missing = max(0, length - unroll - length % unroll)
            turn = _one_turn_flops(jaxpr_as_fun(body), *shapes) if missing else 0.0
            total += missing * turn + length * sum(inside)
        elif parameters.get("branches_platforms"):
            total += inside[parameters["branches_platforms"].index(None)]
        else:
            total += max(inside, default=0) if "branches" in parameters else sum(inside)
    return total


def network_flops(config: FitConfig, dataset: Dataset) -> tuple[float, float]:
    """Operations for one image: of the forward pass, and of the gradient of the loss.

    Of routing that can be computed in several ways it is the library's own choice that counts.
    """
    options = {k: v for k, v in config.model.options.items() if k != "routing_implementation"}
    forward, gradient, arguments = passes(config.changed(model_options=options), dataset, 1)
    return flops(forward, *arguments), flops(gradient, *arguments)


def passes(
    config: FitConfig, dataset: Dataset, batch_size: int
) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]:
    """The forward pass, the gradient of the loss, and the shapes of the arguments of both.

    Raises:
        UserError: if the network cannot be made.
    """
    model = nnx.eval_shape(lambda: build_model(config, dataset.image_shape, dataset.num_classes))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    objective = Objective.of(config)
    of_image = (dataset.labels_per_image,) if dataset.labels_per_image > 1 else ()

    def forward(params: Any, rest: Any, images: jax.Array, labels: jax.Array) -> Any:
        return objective.apply(nnx.merge(graphdef, params, rest), images, labels, training=True)

    def loss(params: Any, rest: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        output = forward(params, rest, images, labels)
        targets = jnp.stack([images] * of_image[0], axis=1) if of_image else images
        return jnp.mean(objective.losses(output, targets, labels)["loss"])

    seen = (batch_size, *seen_shape(config, dataset.image_shape))
    images = jax.ShapeDtypeStruct(seen, jnp.dtype(config.model.param_dtype))
    labels = jax.ShapeDtypeStruct((batch_size, *of_image), jnp.int32)
    arguments = (nnx.to_pure_dict(params), nnx.to_pure_dict(rest), images, labels)
    return forward, jax.grad(loss), arguments
