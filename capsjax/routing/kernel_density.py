"""Fast routing by weighted kernel density estimation (Zhang, Zhao, Wu and Zhou 2018)."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from capsjax._checks import PositiveInt, PositiveNumber
from capsjax.capsules import Squash, SquashFunction, norm
from capsjax.ops._arrays import product
from capsjax.routing._base import Index, IterativeRouting, Routed
from capsjax.routing._inputs import RoutingInputs

ROOT_OF_HALF = math.sqrt(0.5)


class KDEDynamicTrace(NamedTuple):
    """Every iteration of mean shift routing on one example.

    Attributes:
        b: `[R, I, J]`, the logits at the start of each iteration.
        c: `[R, I, J]`, their softmax.
        w: `[R, I, J]`, the weights of the kernels: `c`, of which those of an output capsule are
            made to sum to one.
        s: `[R, J, D]`, the means of the votes.
        v: `[R, J, D]`, the output capsules.
    """

    b: jax.Array
    c: jax.Array
    w: jax.Array
    s: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class KDEDynamic(IterativeRouting):
    """FRMS, the fast form of dynamic routing of Zhang et al. 2018, arXiv:1805.10807.

    The votes for an output capsule are samples, each with a weight, and the capsule is where a
    kernel density estimated from them is highest. With Epanechnikov's kernel, `k(d^2) = 1 - d^2`, a
    step of mean shift is a weighted mean; a weight grows by the kernel between vote and mean:

        c_ij = softmax_j b_ij,  w_ij = c_ij / sum_i c_ij
        v_j = squash(sum_i w_ij u_hat_ij)
        b_ij += 1 - |squash(u_hat_ij) - v_j|^2

    This is what the code of one of the authors computes (`KDE_routing` of NLP-Capsule, of Zhao et
    al. 2019, arXiv:1906.02829); the paper's own pseudo-code may differ from it. As there, the
    kernel is not cut off where it turns negative, activations of the input capsules are not used,
    and those of the output capsules are their lengths. The coupling is `w`, which sums to one over
    the input capsules. Gradients flow through every iteration.

    Attributes:
        iterations: how often the outputs are computed, 3 in the code; at least 1.
        half_length: the length that is squashed to a half, more than 0. The code's squash is
            `n / (0.5 + n^2) s` with `n = |s|`, so `sqrt(0.5)`; that of CapsNet has 1.
        squash: of votes and outputs `[..., J, D]` that have been divided by `half_length`; a
            function, or the fields of a `Squash` by name.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.KDEDynamic(), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax",)

    iterations: PositiveInt = 3
    half_length: PositiveNumber = ROOT_OF_HALF
    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def prepare(self, inputs: RoutingInputs) -> "_Prepared":
        return _Prepared(inputs, self.squash(inputs.wide().votes / self.half_length))

    def first(self, inputs: "_Prepared") -> KDEDynamicTrace:
        return self._shift(inputs, jnp.zeros(inputs.samples.shape[:2], inputs.samples.dtype))

    def again(self, inputs: "_Prepared", state: KDEDynamicTrace, index: Index) -> KDEDynamicTrace:
        return self._shift(inputs, state.b + 1 - _squared_distance(inputs.samples, state.v))

    def outcome(self, state: KDEDynamicTrace) -> Routed:
        return Routed(pose=state.v, activation=norm(state.v), coupling=state.w)

    def _shift(self, inputs: "_Prepared", b: jax.Array) -> KDEDynamicTrace:
        votes = inputs.seen.votes
        c = inputs.seen.softmax(b)
        total = jnp.sum(c, axis=0)
        # After dozens of iterations all input capsules may have left one.
        is_zero = total < jnp.finfo(c.dtype).tiny
        w = c / jnp.where(is_zero, 1, total)[None]
        s = product("ij,ijd->jd", w.astype(votes.dtype), votes)
        return KDEDynamicTrace(b, c, w, s, self.squash(s / self.half_length))


class KDEEMTrace(NamedTuple):
    """Every iteration of routing by EM of kernels on one example.

    Attributes:
        log_pk: `[R, I, J]`, what an iteration starts from: the logarithm of `m_j k(d_ij^2)`, by the
            outputs of the iteration before; zeros at first.
        c: `[R, I, J]`, the coupling coefficients.
        m: `[R, J]`, the mass of each kernel: the sum of the coupling coefficients, each times the
            activation of its input capsule.
        s: `[R, J, D]`, the means of the votes.
        v: `[R, J, D]`, the output capsules.
    """

    log_pk: jax.Array
    c: jax.Array
    m: jax.Array
    s: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class KDEEM(IterativeRouting):
    """FREM: the density of Zhang et al. 2018, arXiv:1805.10807, maximised by EM.

    The paper names two ways to maximise the density that the votes are samples of: mean shift
    (`KDEDynamic`), and EM, which is EM routing with one kernel for all in the place of a
    Gaussian of its own for each output capsule: no variances, no costs, no parameters. Neither its
    pseudo-code nor code for it was at hand, so the steps here are EM's for that density, and are
    not known to be the paper's in every detail:

        c_ij = softmax_j (log m_j - |squash(u_hat_ij) - v_j|^2 / (2 h^2))
        m_j = sum_i c_ij a_i,  v_j = squash(sum_i c_ij a_i u_hat_ij / m_j)

    Activations are lengths, as in `KDEDynamic`, and with the default bandwidth `h` the
    distances count as they do there. Coupling coefficients sum to one over the output capsules.
    Gradients flow through every iteration.

    Attributes:
        iterations: how often the outputs are computed, at least 1.
        bandwidth: of the Gaussian kernel, `h`; more than 0.
        mass_epsilon: added to the mass that means are divided by; more than 0.
        half_length: the length that is squashed to a half, see `KDEDynamic`.
        squash: of votes and outputs, see `KDEDynamic`.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.KDEEM(), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax",)

    iterations: PositiveInt = 3
    bandwidth: PositiveNumber = ROOT_OF_HALF
    mass_epsilon: PositiveNumber = 1e-5
    half_length: PositiveNumber = ROOT_OF_HALF
    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def prepare(self, inputs: RoutingInputs) -> "_Prepared":
        # Weights rounded to bfloat16 would not sum to the mass that their sum is divided by.
        inputs = inputs.wide()
        return _Prepared(inputs, self.squash(inputs.votes / self.half_length))

    def first(self, inputs: "_Prepared") -> KDEEMTrace:
        return self._m_step(inputs, jnp.zeros(inputs.samples.shape[:2], inputs.samples.dtype))

    def again(self, inputs: "_Prepared", state: KDEEMTrace, index: Index) -> KDEEMTrace:
        log_m = jnp.log(state.m + self.mass_epsilon)
        distance = _squared_distance(inputs.samples, state.v)
        return self._m_step(inputs, log_m[None] - distance / (2 * self.bandwidth**2))

    def _m_step(self, inputs: "_Prepared", log_pk: jax.Array) -> KDEEMTrace:
        c = inputs.seen.softmax(log_pk)
        weights = c * inputs.seen.activation[:, None]
        m = jnp.sum(weights, axis=0)
        weights = weights / (m + self.mass_epsilon)[None]
        s = jnp.einsum("ij,ijd->jd", weights, inputs.seen.votes)
        return KDEEMTrace(log_pk, c, m, s, self.squash(s / self.half_length))


class _Prepared(NamedTuple):
    seen: RoutingInputs
    samples: jax.Array


def _squared_distance(samples: jax.Array, v: jax.Array) -> jax.Array:
    """From each vote `[I, J, D]` to its output capsule `[J, D]`: `[I, J]`."""
    return jnp.sum(jnp.square(samples - v[None]), axis=2)
