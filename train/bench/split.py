"""Where a training step spends its time and memory: its parts, each a program of its own.

A part computes what it hands on and, from a gradient of that, the gradients of its parameters and
of what it was given. All parts run on one device, on that device's share of the batch. What lies
between them in the step (gathering and shifting images, adding up gradients over devices, metrics)
belongs to no part, and neither does what the compiler saves by seeing them together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import capsjax
from train.bench.memory import Footprint, footprint
from train.bench.timing import time_rounds
from train.bench.work import compiled_bytes, nominal_flops
from train.learn.objective import Objective
from train.learn.optimizer import build_optimizer
from train.learn.program import Program

NAMES = ("convolutions", "votes", "routing", "decoder", "optimiser")
_NEEDED = ("features", "primary_caps", "class_caps", "decoder")


@dataclass(frozen=True)
class Part:
    """What a part of the step costs.

    Attributes:
        name: one of `NAMES`; "decoder" takes in the losses, and "routing" the votes where the
            implementation of the routing has no votes of its own.
        seconds: of each round, for one step.
        memory: of its program.
        flops: nominal operations.
        bytes_accessed: read and written, by the compiler's count; None if it gives none.
    """

    name: str
    seconds: list[float]
    memory: Footprint
    flops: int
    bytes_accessed: float | None


def has_parts(model: nnx.Module) -> bool:
    """Whether a model consists of the modules that are timed here."""
    return all(hasattr(model, name) for name in _NEEDED)


def measure_parts(program: Program, *, repetitions: int, seconds: float) -> list[Part]:
    """Times every part of a program's training step, on the first examples of its data.

    Args:
        program: its model has to have the parts (`has_parts`).
        repetitions: number of rounds.
        seconds: about how long a round is.
    """
    return [
        _measure(name, function, arguments, repetitions=repetitions, seconds=seconds)
        for name, function, arguments in _parts(program)
    ]


def _measure(
    name: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    repetitions: int,
    seconds: float,
) -> Part:
    # The optimiser's state is replaced by the new one, in the step as here.
    carries = name == "optimiser"
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

    return Part(
        name=name,
        seconds=time_rounds(run, repetitions=repetitions, seconds=seconds),
        memory=footprint(compiled),
        flops=nominal_flops(function, *arguments),
        bytes_accessed=compiled_bytes(compiled),
    )


def _parts(program: Program) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Name, function and arguments of each part, in the order of the step."""
    config, device = program.config, program.mesh.local_devices[0]
    model: Any = program.model()
    objective = Objective.of(config)
    share = config.schedule.batch_size // program.mesh.devices.size
    train = program.dataset.train
    examples = jax.device_put(train.gather(np.arange(share)), device)
    batch = objective.normalise_batch(examples, jnp.dtype(config.model.param_dtype))

    def convolve(modules: Any, inputs: tuple, images: jax.Array) -> capsjax.Capsules:
        features, primary_caps = modules
        return primary_caps(features(images))

    def vote(class_caps: Any, inputs: tuple, constants: None) -> jax.Array:
        return class_caps.votes(*inputs)

    def route_votes(routing: Any, inputs: tuple, constants: None) -> capsjax.Routed:
        return capsjax.route(routing, *inputs)

    def route(class_caps: Any, inputs: tuple, constants: None) -> capsjax.Routed:
        capsules, coupling = class_caps(capsjax.Capsules(*inputs))
        return capsjax.Routed(capsules.pose, capsules.activation, coupling)

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

    modules = (model.features, model.primary_caps)
    function, arguments = _with_gradient(convolve, modules, (), batch.images, device)
    yield "convolutions", function, arguments
    capsules, _ = jax.jit(function)(*arguments)

    class_caps, inputs = model.class_caps, (capsules.pose, capsules.activation)
    chosen = class_caps.implementation or capsjax.implementation_on(
        device.platform, class_caps.routing, share
    )
    if chosen == "xla":
        function, arguments = _with_gradient(vote, class_caps, inputs[:1], None, device)
        yield "votes", function, arguments
        votes, _ = jax.jit(function)(*arguments)
        inputs = (votes, capsules.activation)
        function, arguments = _with_gradient(route_votes, class_caps.routing, inputs, None, device)
    else:
        function, arguments = _with_gradient(route, class_caps, inputs, None, device)
    yield "routing", function, arguments
    routed, _ = jax.jit(function)(*arguments)

    inputs = (routed.pose, routed.activation)
    constants = (batch.targets, batch.labels, routed.coupling)
    yield "decoder", *_with_gradient(decode, model.decoder, inputs, constants, device)

    optimizer = build_optimizer(config, len(train))
    params, state = jax.device_put((program.state.params, program.state.optimizer), device)

    def update(carried: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
        params, state = carried
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    yield "optimiser", update, ((params, state), jax.tree.map(jnp.ones_like, params))


def _with_gradient(
    function: Callable[[Any, tuple, Any], Any],
    modules: Any,
    inputs: tuple[jax.Array, ...],
    constants: Any,
    device: jax.Device,
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A part with its gradients, and what it is called with.

    Whatever is an array is an argument: the compiler would compute with constants beforehand.

    Args:
        function: `(modules, inputs, constants)` -> what the part hands on.
        modules: a module, several, or what has no parameters.
        inputs: what is differentiated beside the parameters.
        constants: what is not.
        device: where the parameters are put.
    """
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
