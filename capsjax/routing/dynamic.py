"""Dynamic routing between capsules (Sabour, Frosst and Hinton 2017)."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from capsjax.capsules import accumulation_dtype, norm, squash
from capsjax.routing.protocol import Routed


@dataclasses.dataclass(frozen=True)
class DynamicRouting:
    """Routing by agreement: Procedure 1 of Sabour, Frosst and Hinton 2017, arXiv:1710.09829.

    The coupling coefficients of an input capsule are a softmax over the output capsules. Its logits
    start at zero for every example and grow by the agreement between a vote and the output that all
    votes made together. Gradients flow through every iteration.

    Attributes:
      iterations: how often the outputs are computed, 3 in the paper; at least 1.

    Raises:
      ValueError: fewer than one iteration.
    """

    iterations: int = 3

    def __post_init__(self) -> None:
        """Checks the number of iterations."""
        if self.iterations < 1:
            raise ValueError(f"dynamic routing needs at least 1 iteration, not {self.iterations}")

    def __call__(self, votes: jax.Array, activation: jax.Array) -> Routed:
        """Routes one example: votes `[I, J, D]`, activation `[I]` (not used) -> `Routed`."""
        del activation  # a vector capsule's activation is in the length of its votes already
        u_hat = votes

        def iterate(b: jax.Array, _: None) -> tuple[jax.Array, None]:
            _, v = self.outputs(u_hat, b)
            return b + self.agreement(u_hat, v), None

        b = jnp.zeros(u_hat.shape[:2], accumulation_dtype(u_hat.dtype))
        b, _ = lax.scan(iterate, b, length=self.iterations - 1, unroll=True)
        c, v = self.outputs(u_hat, b)
        return Routed(pose=v, activation=norm(v), coupling=c)

    def outputs(self, u_hat: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Lines 4 to 6: coupling coefficients `c [I, J]` and output capsules `v [J, D]`."""
        c = jax.nn.softmax(b, axis=1)
        s = _contract("ij,ijd->jd", c.astype(u_hat.dtype), u_hat)
        return c, squash(s)

    def agreement(self, u_hat: jax.Array, v: jax.Array) -> jax.Array:
        """Line 7: the scalar products `[I, J]` of votes and outputs."""
        return _contract("ijd,jd->ij", u_hat, v.astype(u_hat.dtype))


def _contract(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=accumulation_dtype(a.dtype))
