"""Dynamic routing of dense capsules in Pallas kernels, in the form that each accelerator wants."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

from capsjax.capsules import accumulation_dtype
from capsjax.ops import fused_gpu, fused_tpu

FORMS = {"tpu": fused_tpu, "cuda": fused_gpu, "rocm": fused_gpu}


def route_fused(
    kernel: jax.Array, pose: jax.Array, *, iterations: int
) -> tuple[jax.Array, jax.Array]:
    """Computes what `route_recomputing` does with the paper's squash, in one kernel forward.

    Raises:
        ValueError: once compiled, on a platform that has no kernel for them.
    """
    branches: dict[str, Any] = {}
    for platform, form in FORMS.items():
        missing = form.unsupported(kernel.shape)
        if missing is None:
            branches[platform] = functools.partial(form.route, iterations=iterations)
        else:
            branches[platform] = functools.partial(_refuse, reason=f"{missing} on {platform}")
    elsewhere = functools.partial(_refuse, reason="runs on a TPU or GPU alone")
    return lax.platform_dependent(kernel, pose, **branches, default=elsewhere)


# What stands in for the kernels in a program for a platform without one. Which one it is for is not
# known before it is lowered.

_no_kernel = Primitive("dense_routing_without_a_kernel")
_no_kernel.multiple_results = True


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _refuse(kernel: jax.Array, pose: jax.Array, reason: str) -> tuple[jax.Array, ...]:
    return tuple(jax.jit(functools.partial(_no_kernel.bind, reason=reason))(kernel, pose))


@_refuse.defjvp
def _(reason: str, inputs: Any, _tangents: Any) -> tuple[Any, Any]:
    values = _refuse(*inputs, reason)
    return values, tuple(map(jnp.zeros_like, values))  # never computed


@_no_kernel.def_abstract_eval
def _(kernel: Any, pose: Any, reason: str) -> list[Any]:
    batch, n_in, _ = pose.shape
    n_out, dim = kernel.shape[1:3]
    dtype = accumulation_dtype(pose.dtype)
    shapes = ((batch, n_out, dim), (batch, n_in, n_out))
    return [jax.core.ShapedArray(shape, dtype) for shape in shapes]


def _fail(context: mlir.LoweringRuleContext, *_inputs: Any, reason: str) -> Any:
    platforms = ", ".join(context.module_context.platforms)
    raise ValueError(
        f"implementation 'pallas' {reason}, and this program is compiled for {platforms}: name "
        "'recompute', or none"
    )


mlir.register_lowering(_no_kernel, _fail)
