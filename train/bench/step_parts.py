"""Where a training step spends its time and memory: its parts, each a program of its own.

A part computes what it hands on and, from a gradient of that, the gradients of its parameters and
of what it was given. All parts run on one device, on that device's share of the batch. What lies
between them in the step (gathering and shifting images, adding up gradients over devices, metrics)
belongs to no part, and neither does what the compiler saves by seeing them together.
"""

import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import capsjax
from train.bench.costs import compiled_count, flops, footprint
from train.bench.timing import Rounds, time_rounds
from train.learn.objective import Objective
from train.learn.optimizer import build_optimizer
from train.learn.trainer import Trainer

NAMES = ("convolutions", "votes", "routing", "decoder", "optimiser")


def measure_parts(program: Trainer, rounds: Rounds) -> list[dict[str, Any]]:
    """Times every part of a program's training step, on the first examples of its data.

    Returns:
        For each part its `name`, one of `NAMES` ("decoder" takes in the losses, and "routing" the
        votes where the implementation of the routing has no votes of its own); median, slowest and
        fastest `seconds` of one step; the `memory` of its program; its `flops`, and
        `bytes_accessed`, read and written by the compiler's count, None if it gives none. Nothing
        of a model that does not consist of these parts.
    """
    model = program.model()
    # Other networks have layers of the same names, and more between them.
    if not isinstance(model, capsjax.CapsNet) or model.hidden_caps:
        return []
    parts = []
    for name, function, arguments, plain in _parts(program):
        found = measure(function, arguments, rounds, carries=name == "optimiser")
        parts.append({"name": name, **found, "flops": flops(plain, *arguments)})
    return parts


def measure(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    rounds: Rounds,
    *,
    carries: bool = False,
) -> dict[str, Any]:
    """Times a function as a program of its own, as `measure_parts` has it, without its work.

    If it carries, each result takes the place of the first argument, as the optimiser's state does.
    """
    compiled = jax.jit(function, donate_argnums=0 if carries else ()).lower(*arguments).compile()
    carried, *others = arguments
    if carries:
        carried = jax.tree.map(jnp.copy, carried)

    def run(times: int) -> None:
        nonlocal carried
        for _ in range(times):
            result = compiled(carried, *others)
            carried = result if carries else carried
        jax.block_until_ready(result)

    seconds = time_rounds(run, rounds)
    return {
        "seconds": statistics.median(seconds),
        "slowest_seconds": max(seconds),
        "fastest_seconds": min(seconds),
        "memory": footprint(compiled),
        "bytes_accessed": compiled_count(compiled, "bytes accessed"),
    }


def _parts(program: Trainer) -> Iterator[tuple[str, Callable, tuple[Any, ...], Callable]]:
    """Name, function and arguments of each part in turn, and the function, plainly written."""
    config, device = program.config, program.mesh.local_devices[0]
    model: Any = program.model()
    objective, train = Objective.of(config), program.dataset.train
    share = config.schedule.batch_size // program.mesh.devices.size
    examples = jax.device_put(train.gather(np.arange(share)), device)
    batch = objective.normalise_batch(examples, jnp.dtype(config.model.param_dtype))

    def route(class_caps: Any, inputs: tuple, constants: None) -> capsjax.Routed:
        capsules, coupling = class_caps(capsjax.Capsules(*inputs))
        return capsjax.Routed(capsules.pose, capsules.activation, coupling)

    def route_plainly(class_caps: Any, inputs: tuple, constants: None) -> capsjax.Routed:
        return capsjax.route(class_caps.routing, class_caps.votes(inputs[0]), inputs[1])

    def decode(decoder: Any, inputs: tuple, constants: tuple) -> jax.Array:
        (pose, lengths), (targets, labels, coupling) = inputs, constants
        reconstruction = None
        if decoder is not None:
            by_label = objective.settings.mask_in_training == "label"
            shown = labels if by_label else jnp.argmax(lengths, -1)
            reconstruction = capsjax.reconstruct(decoder, pose, shown)
        capsules = capsjax.Capsules(pose, lengths)
        output = capsjax.CapsNetOutput(capsules, lengths, coupling, reconstruction)
        return jnp.mean(objective.losses(output, targets, labels)["loss"])

    optimizer = build_optimizer(config, len(train))

    def update(carried: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
        params, state = carried
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    part = functools.partial(_with_gradient, device)
    modules = (model.features, model.primary_caps)
    function, arguments = part(lambda m, _, images: m[1](m[0](images)), modules, (), batch.images)
    yield "convolutions", function, arguments, function
    capsules = jax.jit(function)(*arguments)[0]

    class_caps, inputs = model.class_caps, (capsules.pose, capsules.activation)
    chosen = class_caps.implementation or capsjax.routing.implementation_on(
        device.platform, class_caps.routing, share
    )
    if chosen == "xla":
        function, arguments = part(lambda caps, pose, _: caps.votes(*pose), class_caps, inputs[:1])
        yield "votes", function, arguments, function
        inputs = (jax.jit(function)(*arguments)[0], capsules.activation)
        function, arguments = part(
            lambda routing, inputs, _: capsjax.route(routing, *inputs), class_caps.routing, inputs
        )
        yield "routing", function, arguments, function
    else:
        function, arguments = part(route, class_caps, inputs)
        yield "routing", function, arguments, part(route_plainly, class_caps, inputs)[0]
    routed = jax.jit(function)(*arguments)[0]

    inputs = (routed.pose, routed.activation)
    constants = (batch.targets, batch.labels, routed.coupling)
    function, arguments = part(decode, model.decoder, inputs, constants)
    yield "decoder", function, arguments, function

    params, state = jax.device_put((program.state.params, program.state.optimizer), device)
    yield "optimiser", update, ((params, state), jax.tree.map(jnp.ones_like, params)), update


def _with_gradient(
    device: jax.Device,
    function: Callable[[Any, tuple, Any], Any],
    modules: Any,
    inputs: tuple[jax.Array, ...],
    constants: Any = None,
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A part with the gradients of its parameters and inputs, and what it is called with."""
    # Whatever is an array is an argument: the compiler would compute with constants beforehand.
    params: Any = {}
    rest: Any = {}
    graphdef = None
    if isinstance(modules, nnx.Module | tuple):
        graphdef, params, rest = nnx.split(modules, nnx.Param, ...)  # type: ignore[misc]
        params, rest = jax.device_put((nnx.to_pure_dict(params), nnx.to_pure_dict(rest)), device)

    def run(params: Any, inputs: tuple, rest: Any, constants: Any) -> Any:
        whole = modules if graphdef is None else nnx.merge(graphdef, params, rest)
        return function(whole, inputs, constants)

    def both(params: Any, inputs: tuple, rest: Any, constants: Any, g: Any) -> tuple[Any, Any]:
        out, backward = jax.vjp(lambda p, x: run(p, x, rest, constants), params, inputs)
        return out, backward(g)

    out = jax.eval_shape(run, params, inputs, rest, constants)
    g = jax.device_put(jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), out), device)
    return both, (params, inputs, rest, constants, g)
