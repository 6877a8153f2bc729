"""How much arithmetic a computation is: what its algorithm asks for, and what the compiler made.

The nominal work is counted in the traced program: two operations for each multiplication of a
matrix product or a convolution that meets a real element, no padding and no dilation. Where a
program has a form of its own for some platform, the form for all others counts. So it is the same
on every machine and for every way to compute it, which makes rates comparable. The compiler's count
is of the executed program, additions and element by element work included; it takes the body of a
loop that is left in it once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.interpreters import partial_eval

from train.config.fit_config import FitConfig
from train.learn.network import build_model, seen_shape
from train.learn.objective import Objective


def nominal_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Operations of the matrix products and convolutions of a function.

    Args:
        function: what to trace; it is not run.
        *arguments: arrays or `jax.ShapeDtypeStruct`.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    # A gradient is traced with results that nobody uses: of the forward pass, of the images.
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return 2 * _multiply_adds(used)


def compiled_flops(compiled: jax.stages.Compiled) -> float | None:
    """The compiler's own count of a program, for one device; None where it gives none."""
    return _analysis(compiled, "flops")


def compiled_bytes(compiled: jax.stages.Compiled) -> float | None:
    """Bytes that a program reads and writes by the compiler's count; None where it gives none."""
    return _analysis(compiled, "bytes accessed")


def network_work(
    config: FitConfig, image_shape: Sequence[int], num_classes: int, labels_per_image: int = 1
) -> tuple[int, int]:
    """Nominal operations for one image: the forward pass, and the gradient of the loss."""
    forward, gradient, arguments = passes(
        config, image_shape, num_classes, batch_size=1, labels_per_image=labels_per_image
    )
    return nominal_flops(forward, *arguments), nominal_flops(gradient, *arguments)


def compiled_forward_work(
    config: FitConfig,
    image_shape: Sequence[int],
    num_classes: int,
    batch_size: int,
    labels_per_image: int = 1,
) -> float | None:
    """Operations for one image of the forward pass, by the compiler's count."""
    forward, _, arguments = passes(config, image_shape, num_classes, batch_size, labels_per_image)
    counted = compiled_flops(jax.jit(forward).lower(*arguments).compile())
    return None if counted is None else counted / batch_size


def passes(
    config: FitConfig,
    image_shape: Sequence[int],
    num_classes: int,
    batch_size: int,
    labels_per_image: int = 1,
) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]:
    """The forward pass, the gradient of the loss, and the shapes of the arguments of both.

    Raises:
        UserError: if the network cannot be made.
    """
    model = nnx.eval_shape(lambda: build_model(config, image_shape, num_classes))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    objective = Objective.of(config)

    def forward(params: Any, rest: Any, images: jax.Array, labels: jax.Array) -> Any:
        return objective.apply(nnx.merge(graphdef, params, rest), images, labels, training=True)

    def loss(params: Any, rest: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        output = forward(params, rest, images, labels)
        several = labels_per_image > 1
        targets = jnp.stack([images] * labels_per_image, axis=1) if several else images
        return jnp.mean(objective.losses(output, targets, labels)["loss"])

    seen = seen_shape(config, image_shape)
    images = jax.ShapeDtypeStruct((batch_size, *seen), jnp.dtype(config.model.param_dtype))
    several = (labels_per_image,) if labels_per_image > 1 else ()
    labels = jax.ShapeDtypeStruct((batch_size, *several), jnp.int32)
    arguments = (nnx.to_pure_dict(params), nnx.to_pure_dict(rest), images, labels)
    return forward, jax.grad(loss), arguments


def _analysis(compiled: jax.stages.Compiled, name: str) -> float | None:
    analysis = compiled.cost_analysis()
    value = analysis.get(name) if isinstance(analysis, dict) else None
    return None if value is None or value < 0 else float(value)


def _multiply_adds(jaxpr: Any) -> int:
    total = 0
    platforms: dict[Any, tuple] = {}  # variables that hold the index of a platform's branch
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "platform_index":
            platforms[equation.outvars[0]] = parameters["platforms"]
        elif name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            lhs, rhs = (variable.aval.shape for variable in equation.invars)
            total += _convolution(lhs, rhs, parameters)
        elif name == "cond":
            counts = [_multiply_adds(branch.jaxpr) for branch in parameters["branches"]]
            chosen = platforms.get(equation.invars[0])
            total += max(counts) if chosen is None else counts[chosen.index(None)]
        else:
            times = parameters["length"] if name == "scan" else 1
            total += times * sum(map(_multiply_adds, _inner(parameters)))
    return total


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _inner(parameters: dict[str, Any]) -> list[Any]:
    """The programs inside of an equation."""
    open_or_closed = [getattr(p, "jaxpr", p) for p in jax.tree.leaves(list(parameters.values()))]
    return [p for p in open_or_closed if hasattr(p, "eqns")]


def _convolution(lhs: tuple[int, ...], rhs: tuple[int, ...], parameters: dict[str, Any]) -> int:
    numbers = parameters["dimension_numbers"]
    batch, _, *sizes = (lhs[axis] for axis in numbers.lhs_spec)
    out_features, in_features, *windows = (rhs[axis] for axis in numbers.rhs_spec)
    pairs = [
        _real_pairs(size, window, stride, padding, spread, dilation)
        for size, window, stride, padding, spread, dilation in zip(
            sizes,
            windows,
            parameters["window_strides"],
            parameters["padding"],
            parameters["lhs_dilation"],
            parameters["rhs_dilation"],
            strict=True,
        )
    ]
    per_position = batch // parameters["batch_group_count"] * in_features * out_features
    return per_position * math.prod(pairs)


def _real_pairs(
    size: int, window: int, stride: int, padding: tuple[int, int], spread: int, dilation: int
) -> int:
    """Along one axis, how often an element of the window meets a real element of the input."""
    length = (size - 1) * spread + 1 + sum(padding)
    outputs = (length - (window - 1) * dilation - 1) // stride + 1
    at = np.arange(outputs)[:, None] * stride + np.arange(window) * dilation - padding[0]
    real = (at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)
    return int(real.sum())
