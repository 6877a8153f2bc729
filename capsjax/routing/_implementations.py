"""The implementations of routing for dense capsules, from poses to capsules, and their choice."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from capsjax import _checks
from capsjax.capsules import norm
from capsjax.ops._arrays import known, product
from capsjax.ops.recompute import route_recomputing
from capsjax.routing._base import Routed, Routing, name_of, needs_of
from capsjax.routing._batching import last_iteration, over_examples
from capsjax.routing._inputs import RoutingInputs, check_mask, where_present
from capsjax.routing.dynamic import Dynamic

Implementation = Literal["xla", "recompute", "pallas"]

IMPLEMENTATIONS: tuple[Implementation, ...] = ("xla", "recompute", "pallas")

# What runs where none is named: on this platform, this one, from this batch size of a device on.
# Everywhere else it is "xla". A line is here because it was measured to be faster: on a CPU,
# "recompute" is from batches of about 16 on. Nothing has been measured on a GPU or TPU.
MEASURED: dict[str, tuple[Implementation, int]] = {"cpu": ("recompute", 16)}


def check_implementation(
    implementation: Implementation | None, routing: Routing
) -> Implementation | None:
    """The implementation, if it is none or can compute that routing; else a ValueError."""
    if implementation is None:
        return None
    _checks.one_of("implementation", implementation, IMPLEMENTATIONS)
    able = _able(routing)
    if implementation not in able:
        name = routing if type(routing) is Dynamic else name_of(routing)
        raise ValueError(
            f"implementation {implementation!r} computes {_ABILITIES[implementation][0]}, not "
            f"{name}, for which there is: {', '.join(able)}"
        )
    return implementation


# What an implementation beside "xla", which computes any routing, can compute.
_ABILITIES: dict[str, tuple[str, Callable[[Dynamic], bool]]] = {
    "recompute": (
        "a Dynamic whose softmax is over 'out' and neither leaky, nor its logits shared",
        lambda routing: (
            routing.softmax_over == "out" and not (routing.leaky or routing.shared_logits)
        ),
    ),
    "pallas": (
        "a Dynamic that differs from the paper's in its iterations alone",
        lambda routing: routing == Dynamic(routing.iterations),
    ),
}


def _able(routing: Routing) -> list[str]:
    """The implementations that can compute a routing."""
    if type(routing) is not Dynamic:  # a subclass may compute something else
        return ["xla"]
    return ["xla", *(name for name, (_, can) in _ABILITIES.items() if can(routing))]


def implementation_on(platform: str, routing: Routing, batch: int) -> Implementation:
    """The implementation that `route_dense` takes where none is named.

    The platform is `"cpu"`, `"cuda"`, `"rocm"` or `"tpu"`, the batch that of one device.

    Examples:
        >>> import capsjax
        >>> capsjax.routing.implementation_on("cpu", capsjax.routing.EM(), 64)
        'xla'
    """
    implementation, from_batch = MEASURED.get(platform, ("xla", 0))
    is_better = batch >= from_batch and implementation in _able(routing)
    return implementation if is_better else "xla"


def dense_votes(kernel: jax.Array, pose: jax.Array) -> jax.Array:
    """Matrices `[I, J, D, K]` and poses `[..., I, K]` -> votes `[..., I, J, D]`.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> capsjax.routing.dense_votes(jnp.ones((6, 3, 16, 8)), jnp.ones((2, 6, 8))).shape
        (2, 6, 3, 16)
    """
    return jnp.einsum("ijdk,...ik->...ijd", kernel, pose)


def sum_dense_votes(kernel: jax.Array, pose: jax.Array) -> jax.Array:
    """`dense_votes` added up over the input capsules, `[..., J, D]`, in one product."""
    return product("ijdk,...ik->...jd", kernel, pose)


def route_dense(
    routing: Routing,
    kernel: jax.Array,
    pose: jax.Array,
    activation: jax.Array,
    *,
    mask: jax.Array | None = None,
    key: jax.Array | None = None,
    implementation: Implementation | None = None,
) -> Routed:
    """Routes the votes `u_hat_ij = W_ij u_i` of a batch.

    All implementations compute the same numbers and the same gradients:

    - `"xla"` computes all votes, keeps them for the backward pass, and gives them to the routing;
    - `"recompute"` never stores them: it goes over the input capsules a tile at a time, and does so
      again in the backward pass;
    - `"pallas"` does the same on a TPU or GPU, in one kernel for all iterations; that its numbers
      are right is known from interpreting it, it has not run on either yet.

    Where none is named, the platform for which the program is compiled and the batch size decide,
    as `implementation_on` tells.

    Args:
        routing: any for `"xla"`; a `Dynamic` for the others.
        kernel: `[I, J, D, K]`, in the dtype of the votes.
        pose: `[batch, I, K]`, in the same dtype.
        activation: `[batch, I]`.
        mask: `[batch, I]`, which capsules are there, see `route`.
        key: for a routing that draws, see `route`.
        implementation: one of the above.

    Returns:
        `Routed`, with `batch` as the leading axis of each array.

    Raises:
        ValueError: there is no such implementation; or it cannot compute this routing, these sizes
            or, once compiled, on that platform.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> kernel, pose = jnp.ones((6, 3, 16, 8)), jnp.ones((2, 6, 8))
        >>> routing = capsjax.routing.Dynamic()
        >>> routed = capsjax.routing.route_dense(routing, kernel, pose, jnp.ones((2, 6)))
        >>> routed.pose.shape
        (2, 3, 16)
    """
    check_implementation(implementation, routing)
    if activation.shape != pose.shape[:-1]:
        raise ValueError(
            "routing takes poses [batch, I, K] and activations [batch, I], not "
            f"{pose.shape} and {activation.shape}"
        )
    check_mask(mask, activation.shape)
    if mask is not None:
        pose = where_present(mask, pose)
    run = functools.partial(_run, routing, mask, key)
    of_batch = (kernel, pose, activation)
    if implementation is not None:
        return run(implementation, None, *of_batch)
    by_platform = {p: implementation_on(p, routing, known(pose.shape[0])) for p in MEASURED}
    # Not even asked about the platform where the answer is the same: a routing may hold parameters.
    if set(by_platform.values()) <= {"xla"}:
        return run("xla", None, *of_batch)
    branches = {p: functools.partial(run, name, p) for p, name in by_platform.items()}
    elsewhere = functools.partial(run, "xla", None)
    return lax.platform_dependent(*of_batch, **branches, default=elsewhere)


def _run(
    routing: Any,
    mask: jax.Array | None,
    key: jax.Array | None,
    implementation: Implementation,
    platform: str | None,
    kernel: jax.Array,
    pose: jax.Array,
    activation: jax.Array,
) -> Routed:
    """Routes by an implementation that is able to, on a platform if that is known."""
    if implementation == "xla":
        total = sum_dense_votes(kernel, pose) if "vote_sum" in needs_of(routing) else None
        inputs = RoutingInputs(dense_votes(kernel, pose), activation, pose, mask=mask, key=key)
        return over_examples(last_iteration, routing, inputs._replace(vote_sum=total))
    options: dict[str, Any] = {"iterations": routing.iterations}
    if implementation == "recompute":
        options |= {"squash": routing.squash, "detach": routing.detach, "platform": platform}
        v, c = route_recomputing(kernel, pose, **options)
    else:
        # Pallas is experimental: only those who ask for it should depend on its import.
        from capsjax.ops.fused import route_fused

        v, c = route_fused(kernel, pose, **options)
    # A pose of zero has votes of zero: without any part in the outputs, it is still shared out.
    c = c if mask is None else where_present(mask, c)
    return Routed(pose=v, activation=norm(v), coupling=c)
