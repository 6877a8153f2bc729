"""Routing by how well the outputs predict the inputs (Heinsen 2022)."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import accumulation_dtype
from capsjax.routing._base import Routed, Routing, Sizes, Softmax, softmax_over_out
from capsjax.routing.iterative import all_of, last_of


class Heinsen2022Trace(NamedTuple):
    """Every iteration of `Heinsen2022Routing` on one example, in the symbols of the author's code.

    `N` iterations route `I` input capsules of dimension `K` to `J` output capsules of dimension
    `D`. All arrays are in `accumulation_dtype` of the votes' dtype.

    Attributes:
        x_pred: `[N, J, K]`, the inputs as the outputs so far predict them; zero at first.
        S: `[N, I, J]`, how similar each input capsule is to what is predicted; zero at first.
        R: `[N, I, J]`, the share of each input capsule that each output capsule gets.
        D_use: `[N, I, J]`, the data of an input capsule that an output capsule uses.
        D_ign: `[N, I, J]`, the data of an input capsule that it ignores.
        phi: `[N, I, J]`, the credit that an input capsule gets for an output capsule, of any sign.
        x_out: `[N, J, D]`, the output capsules before they are normalised.
        x_norm: `[N, J, D]`, the output capsules, normalised, or as they are without `normalize`.
        a_out: `[N, J]`, the logits of the output capsules' activations.
    """

    x_pred: jax.Array
    S: jax.Array
    R: jax.Array
    D_use: jax.Array
    D_ign: jax.Array
    phi: jax.Array
    x_out: jax.Array
    x_norm: jax.Array
    a_out: jax.Array


@dataclasses.dataclass(frozen=True)
class Heinsen2022:
    """The settings of `Heinsen2022Routing`: the routing, before it is known what it connects.

    The defaults are those of the author's code.

    Attributes:
        iterations: how often the outputs are computed, 2 in the author's code; at least 1. With
            one, nothing is predicted, and the parameters of the prediction are without effect.
        normalize: whether the components of each output capsule are given the mean 0 and the
            variance 1 at the end, as they always are where they predict the inputs. A capsule of
            one component is left as it is.
        epsilon: added to that variance where it is divided by; above 0, at most 1.

    Raises:
        ValueError: a value is not one of these.
    """

    iterations: int = 2
    normalize: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Checks the values."""
        _checks.positive_integer("iterations of Heinsen's routing", self.iterations)
        _checks.boolean("normalize", self.normalize)
        if _checks.fraction("epsilon of Heinsen's routing", self.epsilon) == 0:
            raise ValueError("epsilon of Heinsen's routing is divided by: it must be above 0")

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> Routing:
        """Makes a `Heinsen2022Routing`, see `UnsizedRouting`."""
        routing = Heinsen2022Routing(sizes, settings=self, param_dtype=param_dtype, rngs=rngs)
        # That it needs the poses, too, is in its signature; the type has no word for it.
        return cast(Routing, routing)


class Heinsen2022Routing(nnx.Module):
    """Each output capsule predicts the input capsules, and gets a share of those it predicts well.

    Heinsen 2022, "An Algorithm for Routing Vectors in Sequences", arXiv:2211.11754, whose four
    networks are found here as follows. `F`, which proposes outputs, is the layer's: its votes.
    `G`, which predicts inputs from outputs, is a linear map into the space of the inputs, the same
    for all output capsules, whose components each of them scales and shifts. `S`, which compares
    inputs with predictions, is the logarithm of the logistic function of their scalar product,
    scaled and shifted. Both are those of the author's code, as is all that follows. Gradients flow
    through every iteration.

    `A`, which scores the activations of vectors that come without, is a scalar product with the
    vector. In the paper a routing begins with it, on its inputs; here capsules come with their
    activations, from 0 to 1, and `A` is at the end: the output's activations are those that a
    routing of the output capsules would begin with. The paper's classes are vectors of one
    component, which is their score; `A` is the score of classes that are longer vectors.

    Output capsules are sums of the votes, each weighted by its credit `phi`: the benefit `beta_use`
    of the data that is used, less the cost `beta_ign` of that which is ignored. The credits may be
    negative and sum to nothing in particular; the coupling of the result is the shares `R`, which
    sum to one over the output capsules, and the credits are in the trace.

    Args:
        sizes: what it connects.
        settings: how it is done.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        settings: Heinsen2022 = Heinsen2022(),
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        I, K, J, D = sizes  # noqa: E741

        def normal(deviation: float, *shape: int) -> nnx.Param:
            init = nnx.initializers.normal(deviation)
            return nnx.Param(init(rngs.params(), shape, param_dtype))

        def zeros(*shape: int) -> nnx.Param:
            return nnx.Param(jnp.zeros(shape, param_dtype))

        self.sizes = sizes
        self.settings = settings
        self.W_G1 = normal(1 / math.sqrt(D), D, K)
        self.W_G2 = normal(1, J, K)
        self.B_G2 = zeros(J, K)
        self.W_S = normal(1 / math.sqrt(K), I, J)
        self.B_S = zeros(I, J)
        self.beta_use = normal(1, I, J)
        self.beta_ign = normal(1, I, J)
        self.W_A = normal(2 / math.sqrt(D), J, D)
        self.B_A = zeros(J)

    def __call__(
        self,
        votes: jax.Array,
        activation: jax.Array,
        *,
        pose: jax.Array,
        softmax: Softmax = softmax_over_out,
    ) -> Routed:
        """Routes one example.

        Args:
            votes: `[I, J, D]`.
            activation: `[I]`, from 0 to 1.
            pose: `[I, K]`, what the output capsules predict.
            softmax: over the output capsules.
        """
        steps = self._steps(votes, activation, pose, softmax)
        return self.outcome(last_of(*steps, self.settings.iterations))

    def trace(
        self,
        votes: jax.Array,
        activation: jax.Array,
        *,
        pose: jax.Array,
        softmax: Softmax = softmax_over_out,
    ) -> Heinsen2022Trace:
        """Routes one example and keeps every iteration."""
        return all_of(*self._steps(votes, activation, pose, softmax), self.settings.iterations)

    def outcome(self, state: Heinsen2022Trace) -> Routed:
        """What one iteration of a trace comes to."""
        return Routed(pose=state.x_norm, activation=jax.nn.sigmoid(state.a_out), coupling=state.R)

    def _steps(
        self, V: jax.Array, activation: jax.Array, pose: jax.Array, softmax: Softmax
    ) -> tuple[Heinsen2022Trace, Callable[[Heinsen2022Trace, jax.Array], Heinsen2022Trace]]:
        I, K, J, D = self.sizes  # noqa: E741
        if V.shape != (I, J, D) or pose.shape != (I, K):
            raise ValueError(
                f"a routing of {self.sizes} cannot route votes of shape {V.shape} and poses of "
                f"shape {pose.shape}"
            )
        dtype = accumulation_dtype(V.dtype)
        x_inp, f_a_inp = pose.astype(dtype), activation.astype(dtype)[:, None]

        def after(x_pred: jax.Array, S: jax.Array) -> Heinsen2022Trace:
            R = softmax(S)
            D_use, D_ign = self._d_step(R, f_a_inp)
            return Heinsen2022Trace(x_pred, S, R, D_use, D_ign, *self._m_step(V, D_use, D_ign))

        def again(state: Heinsen2022Trace, _index: jax.Array) -> Heinsen2022Trace:
            return after(*self._predict(state.x_out, x_inp))

        return after(jnp.zeros((J, K), dtype), jnp.zeros((I, J), dtype)), again

    def _predict(self, x_out: jax.Array, x_inp: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The inputs `[J, K]` that the outputs predict, and how similar `[I, J]` they are."""
        get = self._in(x_out.dtype)
        predicted = self._normalized(x_out) @ get(self.W_G1)
        x_pred = predicted * get(self.W_G2) + get(self.B_G2)
        S = jax.nn.log_sigmoid((x_inp @ x_pred.T) * get(self.W_S) + get(self.B_S))
        return x_pred, S

    def _d_step(self, R: jax.Array, f_a_inp: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The data `[I, J]` of the input capsules `[I, 1]` that is used, and that is not."""
        D_use = f_a_inp * R
        return D_use, f_a_inp - D_use

    def _m_step(
        self, V: jax.Array, D_use: jax.Array, D_ign: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Credits `[I, J]`, output capsules before and after, `[J, D]`, and scores `[J]`."""
        get = self._in(D_use.dtype)
        phi = get(self.beta_use) * D_use - get(self.beta_ign) * D_ign
        x_out = jnp.einsum("ij,ijd->jd", phi.astype(V.dtype), V, preferred_element_type=phi.dtype)
        x_norm = self._normalized(x_out) if self.settings.normalize else x_out
        score = jnp.sum(x_norm * get(self.W_A), axis=-1)
        return phi, x_out, x_norm, score / math.sqrt(len(x_norm)) + get(self.B_A)

    def _normalized(self, x: jax.Array) -> jax.Array:
        """`N`: the components `[J, D]` of each capsule with mean 0 and variance 1."""
        if x.shape[-1] == 1:
            return x
        deviation = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(deviation), axis=-1, keepdims=True)
        return deviation * lax.rsqrt(variance + self.settings.epsilon)

    def _in(self, dtype: jnp.dtype) -> Callable[[nnx.Param], jax.Array]:
        return lambda parameter: parameter[...].astype(dtype)
