"""What a routing sees of one example: votes, and what it may need beside them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from capsjax.capsules import accumulation_dtype
from capsjax.ops._arrays import product

Softmax = Callable[[jax.Array], jax.Array]
"""`[I, J]` -> `[I, J]`: a softmax over all output capsules that an input capsule votes for."""


def softmax_over_out(logits: jax.Array) -> jax.Array:
    """The softmax over the output capsules in sight: `[I, J]` -> `[I, J]`.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> capsjax.routing.softmax_over_out(jnp.zeros((6, 4)))[0]
        Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    return jax.nn.softmax(logits, axis=-1)


def where_present(mask: jax.Array, x: jax.Array) -> jax.Array:
    """`x [..., ...]` where the mask `[...]` of capsules is true, and zero elsewhere.

    A zero also of what is no number, and a gradient of zero.
    """
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, jnp.zeros_like(x))


def check_mask(mask: Any, shape: tuple[int, ...]) -> None:
    """A ValueError if a mask is not of the shape of the activations, or not of booleans."""
    if mask is not None and (mask.shape != shape or mask.dtype != bool):
        raise ValueError(
            f"a mask must be booleans of the shape of the activations, {list(shape)}, not "
            f"{mask.dtype} {list(mask.shape)}"
        )


class RoutingInputs(NamedTuple):
    """All that a routing may see of one example.

    Attributes:
        votes: `[I, J, D]`.
        activation: `[I]`.
        pose: `[I, K]`, the poses of the input capsules; None where the routing does not need them.
        softmax: over all output capsules that an input capsule votes for.
        parameters: of a `LearnedRouting`, by their names, in `accumulation_dtype(votes.dtype)`.
        mask: `[I]` booleans, which input capsules are there; None for all.
        key: a random key of this example; None where nothing is to be drawn.
        vote_sum: `[J, D]`, the votes of all input capsules that are there, added up, in
            `accumulation_dtype(votes.dtype)`; None where that is not known, see `Routing`.
    """

    votes: jax.Array
    activation: jax.Array
    pose: Any = None
    softmax: Softmax = softmax_over_out
    parameters: Any = None
    mask: Any = None
    key: Any = None
    vote_sum: Any = None

    def shared_equally(self, c: jax.Array) -> jax.Array:
        """`sum_i c_ij u_hat_ij`, `[J, D]`, of shares `c` that are the softmax of zeros."""
        if self.vote_sum is None:
            return product("ij,ijd->jd", c.astype(self.votes.dtype), self.votes)
        return self.vote_sum / self.votes.shape[1]

    @property
    def votes_by_output(self) -> jax.Array:
        """The votes, `[J, I, D]`: in this order sums over input capsules are matrix products."""
        return jnp.swapaxes(self.votes, 0, 1)

    def present(self, x: jax.Array) -> jax.Array:
        """An array `[I, ...]` with zeros for the input capsules that are not there."""
        return x if self.mask is None else where_present(self.mask, x)

    def masked(self) -> "RoutingInputs":
        """The same, in which input capsules that are not there are zero, and get no coupling."""
        if self.mask is None:
            return self
        return self._replace(
            votes=self.present(self.votes),
            activation=self.present(self.activation),
            pose=None if self.pose is None else self.present(self.pose),
            softmax=lambda logits: self.present(self.softmax(logits)),
        )

    def wide(self) -> "RoutingInputs":
        """The same with votes and activation in `accumulation_dtype(votes.dtype)`."""
        dtype = accumulation_dtype(self.votes.dtype)
        return self._replace(
            votes=self.votes.astype(dtype), activation=self.activation.astype(dtype)
        )


def leaky(softmax: Softmax) -> Softmax:
    """A softmax in which a further logit, always zero, takes part; what it gets is lost.

    So an input capsule may belong to nothing above. An option of the authors' code of dynamic and
    of EM routing.
    """

    def softmax_with_orphans(logits: jax.Array) -> jax.Array:
        c = softmax(logits)
        # The sum of all exponentials is exp(logit) / c, wherever c is not too small to tell.
        best = jnp.argmax(logits, axis=-1, keepdims=True)
        logit, share = (jnp.take_along_axis(x, best, axis=-1) for x in (logits, c))
        total = logit - jnp.log(jnp.maximum(share, jnp.finfo(c.dtype).tiny))
        return c * jax.nn.sigmoid(total)

    return softmax_with_orphans
