"""Dynamic routing between capsules (Sabour, Frosst and Hinton 2017)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Squash, SquashFunction, accumulation_dtype, squash_from
from capsjax.ops._arrays import product
from capsjax.routing._base import Index, IterativeRouting, RoutingInputs, SizedRouting, Sizes, leaky
from capsjax.routing.mapping import EXAMPLES


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
            `route` or `map_examples`.
        shared_axes: names of further mapped axes whose examples share their logits: that of the
            devices, where a batch is spread over several. Only used with `shared_logits`.
        detach: whether gradients flow through the last iteration only: its logits are constants.
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.

    Raises:
        ValueError: a value is not one of these, or `leaky` goes with a softmax over `"in"`.
    """

    needs = ("softmax",)

    iterations: int = 3
    softmax_over: Literal["out", "in"] = "out"
    leaky: bool = False
    shared_logits: bool = False
    shared_axes: tuple[str, ...] = ()
    detach: bool = False
    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        _checks.positive_integer("iterations of dynamic routing", self.iterations)
        _checks.one_of("softmax_over", self.softmax_over, ("in", "out"))
        _checks.fields(self, _checks.boolean, "leaky", "shared_logits", "detach")
        if self.leaky and self.softmax_over == "in":
            raise ValueError("leaky needs softmax_over='out': it is the output capsules that lose")
        object.__setattr__(self, "shared_axes", _checks.names("shared_axes", self.shared_axes))
        object.__setattr__(self, "squash", squash_from(self.squash))

    def first(self, inputs: RoutingInputs) -> DynamicTrace:
        """Lines 2 to 6: the logits are zero."""
        dtype = accumulation_dtype(inputs.votes.dtype)
        return self.from_logits(jnp.zeros(inputs.votes.shape[:2], dtype), inputs)

    def again(self, inputs: RoutingInputs, state: DynamicTrace, index: Index) -> DynamicTrace:
        """Lines 7 and 4 to 6."""
        return self.from_logits(self.more_logits(inputs, state), inputs)

    def more_logits(self, inputs: RoutingInputs, state: DynamicTrace) -> jax.Array:
        """Line 7: the scalar products of votes and outputs are added to the logits `[I, J]`."""
        u_hat = inputs.votes
        agreement = product("ijd,jd->ij", u_hat, state.v.astype(u_hat.dtype))
        if self.shared_logits:
            agreement = lax.pmean(agreement, (EXAMPLES, *self.shared_axes))
        if self.detach:
            agreement = lax.stop_gradient(agreement)
        return state.b + agreement

    def from_logits(
        self, b: jax.Array, inputs: RoutingInputs, bias: jax.Array | None = None
    ) -> DynamicTrace:
        """Lines 4 to 6: coupling and output capsules of the logits `b [I, J]`.

        A `bias [J, D]` is added before squash.
        """
        u_hat = inputs.votes
        if self.softmax_over == "in":
            c = jax.nn.softmax(b, axis=0)
        else:
            c = leaky(inputs.softmax)(b) if self.leaky else inputs.softmax(b)
        s = product("ij,ijd->jd", c.astype(u_hat.dtype), u_hat)
        s = s if bias is None else s + bias.astype(s.dtype)
        return DynamicTrace(b, c, s, self.squash(s))


@dataclasses.dataclass(frozen=True)
class DynamicLeaky(Dynamic):
    """`Dynamic(leaky=True)`: an input capsule may belong to nothing above."""

    softmax_over: Literal["out", "in"] = dataclasses.field(default="out", init=False)
    leaky: bool = dataclasses.field(default=True, init=False)


@dataclasses.dataclass(frozen=True)
class DynamicPrior(Dynamic):
    """Dynamic routing that starts from a learned log prior `[I, J]`, which all examples share.

    Sabour, Frosst and Hinton 2017, arXiv:1710.09829, section 2: the initial logits are log prior
    probabilities that can be learned together with the weights. They start at zero, which is what
    routing without a prior starts from. The attributes are those of `Dynamic`.
    """

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> "_DynamicPrior":
        return _DynamicPrior(self, sizes, param_dtype=param_dtype, rngs=rngs)


class _DynamicPrior(SizedRouting):
    depends_on = ("in_capsules", "out_capsules")

    def make_parameters(self, sizes: Sizes, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.prior = nnx.Param(jnp.zeros((sizes.in_capsules, sizes.out_capsules), param_dtype))

    def first(self, inputs: RoutingInputs) -> DynamicTrace:
        b = self.prior[...].astype(accumulation_dtype(inputs.votes.dtype))
        return self.settings.from_logits(b, inputs)

    def again(self, inputs: RoutingInputs, state: DynamicTrace, index: Index) -> DynamicTrace:
        return self.settings.again(inputs, state, index)


@dataclasses.dataclass(frozen=True)
class DynamicBias(Dynamic):
    """Dynamic routing to output capsules with a learned bias `[J, D]`, added in every iteration.

    What the code of the authors of Sabour, Frosst and Hinton 2017 does, and the paper does not
    tell: the bias is added to the sum of the votes before squash. The other attributes are those of
    `Dynamic`.

    Attributes:
        initial_bias: what each number of the bias starts from.
    """

    initial_bias: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.number("initial_bias", self.initial_bias)

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> "_DynamicBias":
        return _DynamicBias(self, sizes, param_dtype=param_dtype, rngs=rngs)


class _DynamicBias(SizedRouting):
    depends_on = ("out_capsules", "out_dim")

    def make_parameters(self, sizes: Sizes, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        shape = (sizes.out_capsules, sizes.out_dim)
        self.bias = nnx.Param(jnp.full(shape, self.settings.initial_bias, param_dtype))

    def first(self, inputs: RoutingInputs) -> DynamicTrace:
        dtype = accumulation_dtype(inputs.votes.dtype)
        b = jnp.zeros(inputs.votes.shape[:2], dtype)
        return self.settings.from_logits(b, inputs, self.bias[...])

    def again(self, inputs: RoutingInputs, state: DynamicTrace, index: Index) -> DynamicTrace:
        return self.settings.from_logits(
            self.settings.more_logits(inputs, state), inputs, self.bias[...]
        )
