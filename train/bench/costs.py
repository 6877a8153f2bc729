"""What a program costs by XLA's analysis, its memory and its arithmetic, and the memory there is.

The work of a network is counted in its program as it would be lowered for an accelerator, so that
it is the same on every machine, however that computes it. XLA counts every addition, multiplication
and function of an element as one operation; convolutions without their padding. Of a loop it counts
one turn, to which the others are added here. The count of a compiled program is left as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun
from jax.interpreters import partial_eval

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


def flops(function: Callable[..., Any], *arguments: Any) -> float | None:
    """Operations of a function on an accelerator, every turn of its loops counted.

    It is traced, and neither run nor compiled; its arguments are arrays or their shapes. None where
    `JAX_PLATFORMS` names no CPU, whose backend alone counts what is not compiled.
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    with jax.default_device(cpu):
        jaxpr = jax.make_jaxpr(function)(*shapes).jaxpr
        # A gradient is traced with results that nobody uses: of the forward pass, of the images.
        used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return _one_turn_flops(function, *shapes) + _other_turns_flops(used)


def _one_turn_flops(function: Callable[..., Any], *shapes: Any) -> float:
    lowered = jax.jit(function).trace(*shapes).lower(lowering_platforms=("tpu",))
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
