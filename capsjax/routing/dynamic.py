"""Dynamic routing between capsules (Sabour, Frosst and Hinton 2017)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from capsjax._checks import Names, Number, PositiveInt
from capsjax.capsules import Squash, SquashFunction, accumulation_dtype
from capsjax.ops._arrays import product
from capsjax.routing._base import Index, IterativeRouting, LearnedRouting, Parameters, Sizes
from capsjax.routing._batching import EXAMPLES
from capsjax.routing._inputs import RoutingInputs, leaky


class DynamicTrace(NamedTuple):
    """Every iteration of dynamic routing on one example, in the symbols of the paper.

    Attributes:
        b: `[R, I, J]`, the logits at the start of each iteration.
        c: `[R, I, J]`, the coupling coefficients.
        s: `[R, J, D]`, the output capsules before squash.
        v: `[R, J, D]`, the output capsules.
    """

    b: jax.Array
    c: jax.Array
    s: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class Dynamic(IterativeRouting):
    """Routing by agreement: Procedure 1 of Sabour, Frosst and Hinton 2017, arXiv:1710.09829.

    The coupling coefficients of an input capsule are a softmax over the output capsules. Its logits
    start at zero for every example and grow by the agreement between a vote and the output that all
    votes made together. Gradients flow through every iteration. The activations of the input
    capsules are not used: those of vector capsules are in the lengths of their votes already.

    The defaults are the paper's. The other options are what public implementations do instead.

    Attributes:
        iterations: how often the outputs are computed, 3 in the paper; at least 1.
        softmax_over: coupling coefficients sum to one over the `"out"` capsules (the paper's), or
            over the `"in"` capsules.
        leaky: whether an input capsule may belong to nothing above: a further logit, always zero,
            takes part in the softmax over the output capsules, and what it gets is lost. An option
            of the authors' own code, with which coupling coefficients sum to less than one.
        shared_logits: whether all examples have the same logits, which grow by the mean agreement
            of the batch. Results then depend on batch mates, and the routing has to be mapped by
            `route` or `map_examples`. In a `ConvCaps` with `competition="patch"`, where each
            position is routed by itself, all positions share them, too.
        shared_axes: names of further mapped axes whose examples share their logits: that of the
            devices, where a batch is spread over several. Only used with `shared_logits`.
        detach: whether gradients flow through the last iteration only: its logits are constants.
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.

    Raises:
        ValueError: a value is not one of these, or `leaky` goes with a softmax over `"in"`.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.Dynamic(iterations=3), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax",)

    iterations: PositiveInt = 3
    softmax_over: Literal["out", "in"] = "out"
    leaky: bool = False
    shared_logits: bool = False
    shared_axes: Names = ()
    detach: bool = False
    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leaky and self.softmax_over == "in":
            raise ValueError("leaky needs softmax_over='out': it is the output capsules that lose")

    def first(self, inputs: RoutingInputs) -> DynamicTrace:
        """Lines 2 to 6: the logits are zero."""
        dtype = accumulation_dtype(inputs.votes.dtype)
        return self.from_logits(jnp.zeros(inputs.votes.shape[:2], dtype), inputs)

    def again(self, inputs: RoutingInputs, state: DynamicTrace, index: Index) -> DynamicTrace:
        """Line 7: the scalar products of votes and outputs are added to the logits."""
        u_hat = inputs.votes
        agreement = product("ijd,jd->ij", u_hat, state.v.astype(u_hat.dtype))
        if self.shared_logits:
            agreement = lax.pmean(agreement, (EXAMPLES, *self.shared_axes))
        if self.detach:
            agreement = lax.stop_gradient(agreement)
        return self.from_logits(state.b + agreement, inputs)

    def from_logits(self, b: jax.Array, inputs: RoutingInputs) -> DynamicTrace:
        """Lines 4 to 6: coupling and output capsules of the logits `b [I, J]`."""
        if self.softmax_over == "in":
            lowest = jnp.finfo(b.dtype).min
            b = b if inputs.mask is None else jnp.where(inputs.mask[:, None], b, lowest)
            c = inputs.present(jax.nn.softmax(b, axis=0))
        else:
            c = leaky(inputs.softmax)(b) if self.leaky else inputs.softmax(b)
        s = self.before_squash(c, inputs)
        return DynamicTrace(b, c, s, self.squash(s))

    def before_squash(self, c: jax.Array, inputs: RoutingInputs) -> jax.Array:
        """Line 5: the sums `[J, D]` of the votes by their coupling `c [I, J]`."""
        return product("ij,ijd->jd", c.astype(inputs.votes.dtype), inputs.votes)


@dataclasses.dataclass(frozen=True)
class DynamicLeaky(Dynamic):
    """`Dynamic(leaky=True)`: an input capsule may belong to nothing above.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.DynamicLeaky(), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    softmax_over: Literal["out", "in"] = dataclasses.field(default="out", init=False)
    leaky: bool = dataclasses.field(default=True, init=False)


@dataclasses.dataclass(frozen=True)
class DynamicPrior(Dynamic, LearnedRouting):
    """Dynamic routing that starts from a learned log prior `[I, J]`, which all examples share.

    Sabour, Frosst and Hinton 2017, arXiv:1710.09829, section 2: the initial logits are log prior
    probabilities that can be learned together with the weights. They start at zero, which is what
    routing without a prior starts from. The attributes are those of `Dynamic`.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.DynamicPrior()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax",)

    def parameters(self, sizes: Sizes) -> Parameters:
        return {"prior": ((sizes.in_capsules, sizes.out_capsules), 0)}

    def first(self, inputs: RoutingInputs) -> DynamicTrace:
        return self.from_logits(inputs.parameters["prior"], inputs)


@dataclasses.dataclass(frozen=True)
class DynamicBias(Dynamic, LearnedRouting):
    """Dynamic routing to output capsules with a learned bias `[J, D]`, added in every iteration.

    What the code of the authors of Sabour, Frosst and Hinton 2017 does, and the paper does not
    tell: the bias is added to the sum of the votes before squash. The other attributes are those of
    `Dynamic`.

    Attributes:
        initial_bias: what each number of the bias starts from.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.DynamicBias()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax",)

    initial_bias: Number = 0.1

    def parameters(self, sizes: Sizes) -> Parameters:
        return {"bias": ((sizes.out_capsules, sizes.out_dim), self.initial_bias)}

    def before_squash(self, c: jax.Array, inputs: RoutingInputs) -> jax.Array:
        return super().before_squash(c, inputs) + inputs.parameters["bias"]
