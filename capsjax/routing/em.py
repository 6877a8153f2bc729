"""EM routing between matrix capsules (Hinton, Sabour and Frosst 2018)."""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from capsjax._checks import FractionBelow1, Number, PositiveInt, PositiveNumber
from capsjax.ops._arrays import product
from capsjax.routing._base import Index, LearnedRouting, Parameters, Routed, Sizes
from capsjax.routing._inputs import RoutingInputs, leaky

LOG_TWO_PI = math.log(2 * math.pi)


class EMTrace(NamedTuple):
    """Every iteration of EM routing on one example, in the symbols of the paper.

    Attributes:
        log_ap: `[R, I, J]`, what an iteration starts from: the logarithm of `a_j p_j(V_ij)`, by the
            Gaussians of the iteration before; zeros at first.
        r: `[R, I, J]`, the assignment probabilities.
        mass: `[R, J]`, the sum of the assignments, each times the activation of its input capsule.
        mu: `[R, J, D]`, the means: the poses of the output capsules.
        variance: `[R, J, D]`, the squares of the paper's `sigma`.
        logit: `[R, J]`, that of the activation.
        a: `[R, J]`, the activations of the output capsules.
    """

    log_ap: jax.Array
    r: jax.Array
    mass: jax.Array
    mu: jax.Array
    variance: jax.Array
    logit: jax.Array
    a: jax.Array


@dataclasses.dataclass(frozen=True)
class EM(LearnedRouting):
    """EM routing: Procedure 1 of Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing".

    Each output capsule is a Gaussian with a diagonal covariance, fitted to the votes. The M-step
    makes it from the votes that are assigned to it, and switches the capsule on if it describes
    them in few bits; the E-step assigns each input capsule anew. The authors published no arXiv
    version (ICLR 2018, openreview.net/forum?id=HJWLfGWRb); their code is `capsule_em` of
    google-research. Two parameters for each output capsule, `beta_u` and `beta_a`, set what it
    costs to describe a vote, and to be on.

    The result's pose is the mean, its activation the paper's `a_j`, from 0 to 1, and its coupling
    the assignment probabilities `R_ij` that the means were made with: a softmax over the output
    capsules, before they are multiplied by the input activations.

    The defaults are those of the authors' code for a convolution, but for `mass_epsilon`; what the
    paper calls a schedule and leaves open is the code's. For a class layer that has a quarter of
    the temperature's inverse (`inverse_temperature=0.0025`) and starts from `initial_beta_u=2` and
    `initial_beta_a=1`.

    The re-implementation in PyTorch by yl-1993, whose `beta_u` and `beta_a` these then are, is
    `formulation="paper"`, `inverse_temperature=0.001`, `temperature_decay=0`, `previous_share=0`,
    `min_variance=1e-8`, `mass_epsilon=1e-8`, `renormalize=True` and both initial values 0.

    Attributes:
        iterations: how often the Gaussians are computed, 3 in the code; at least 1.
        formulation: how an activation follows from the mass `m` and the variances of a capsule.
            In the `"paper"` (Procedure 1),
            `logit = lambda (beta_a - m sum_h (beta_u + log sigma_h))` over the pose components `h`.
            In the `"code"`,
            `logit = lambda (m (-sum_h log sigma_h^2 - beta_u D (1 + log 2 pi)) - 5000 beta_a)`:
            half of that is the paper's with other units, and with `beta_u = 1` the cost is exactly
            the entropy of the Gaussian, as in the paper's equation 1.
        inverse_temperature: what `lambda` tends to, more than 0.
        temperature_decay: in iteration `t` from 1 on `lambda` is
            `inverse_temperature (1 - temperature_decay^t)`. From 0, for a constant, to 1
            (exclusive).
        previous_share: the share that the mean of the iteration before has in a mean. It is zero
            before the first iteration, and counts there, too. From 0, the paper's, to 1
            (exclusive).
        min_variance: added to every variance; more than 0.
        mass_epsilon: added to the mass that means and variances are divided by, and in the
            `"code"` to `m`; more than 0. The code has 1e-5 where it is dense and 1e-7 in
            convolutions.
        renormalize: whether the assignments of an input capsule are normalised once more after they
            are multiplied by its activation. Every capsule counts alike then, unless its activation
            is about as small as `mass_epsilon`.
        leaky: whether an input capsule may belong to nothing above, see `Dynamic`. An option of the
            authors' code.
        initial_beta_u: what `beta_u` starts from.
        initial_beta_a: what `beta_a` starts from.

    Raises:
        ValueError: a value is not one of these, or what `leaky` takes away `renormalize` would give
            back.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.EM()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    iterations: PositiveInt = 3
    formulation: Literal["code", "paper"] = "code"
    inverse_temperature: PositiveNumber = 0.01
    temperature_decay: FractionBelow1 = 0.95
    previous_share: FractionBelow1 = 0.1
    min_variance: PositiveNumber = 0.0005
    mass_epsilon: PositiveNumber = 1e-5
    renormalize: bool = False
    leaky: bool = False
    initial_beta_u: Number = 0.5
    initial_beta_a: Number = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leaky and self.renormalize:
            raise ValueError(
                "leaky=True and renormalize=True contradict each other: one leaves a part of an "
                "input capsule to nothing above, the other gives it back; choose one"
            )

    @property
    def schedule(self) -> list[float]:
        """`lambda` of each iteration."""
        steps = range(1, self.iterations + 1)
        return [self.inverse_temperature * (1 - self.temperature_decay**t) for t in steps]

    def parameters(self, sizes: Sizes) -> Parameters:
        shape = (sizes.out_capsules,)
        return {"beta_u": (shape, self.initial_beta_u), "beta_a": (shape, self.initial_beta_a)}

    def prepare(self, inputs: RoutingInputs) -> RoutingInputs:
        # Weights rounded to bfloat16 would not sum to the mass, and shift the means they make.
        return inputs.wide()

    def first(self, inputs: RoutingInputs) -> EMTrace:
        n_in, n_out, dim = inputs.votes.shape
        dtype = inputs.votes.dtype
        nothing = jnp.zeros((n_out, dim), dtype)
        return self._m_step(inputs, jnp.zeros((n_in, n_out), dtype), nothing, 0)

    def again(self, inputs: RoutingInputs, state: EMTrace, index: Index) -> EMTrace:
        return self._m_step(inputs, _e_step(inputs.votes_by_output, state), state.mu, index)

    def outcome(self, state: EMTrace) -> Routed:
        return Routed(pose=state.mu, activation=state.a, coupling=state.r)

    def _m_step(
        self, inputs: RoutingInputs, log_ap: jax.Array, mu: jax.Array, index: Index
    ) -> EMTrace:
        """Line 7 of the E-step, and the M-step, whose lines are numbered."""
        V, a_in, parameters = inputs.votes_by_output, inputs.activation, inputs.parameters
        softmax = leaky(inputs.softmax) if self.leaky else inputs.softmax
        r = softmax(log_ap)
        # 2: how much each vote counts.
        if self.renormalize:
            a_in = a_in / (a_in + self.mass_epsilon)
        weights = r * a_in[:, None]
        mass, share = jnp.sum(weights, axis=0), self.previous_share
        # 3 and 4. A sum that is divided by may not be zero: that of a capsule that gets nothing.
        weights = weights / (mass + self.mass_epsilon)[None]
        mu = (1 - share) * jnp.einsum("ij,jid->jd", weights, V) + share * mu
        deviation = jnp.square(V - mu[:, None])
        variance = jnp.einsum("ij,jid->jd", weights, deviation) + self.min_variance
        # 5 and 6: what is saved by being on.
        beta_u, beta_a = parameters["beta_u"], parameters["beta_a"]
        dim, log_det = V.shape[2], jnp.sum(jnp.log(variance), axis=1)
        if self.formulation == "paper":
            saving = beta_a - mass * (dim * beta_u + log_det / 2)
        else:
            code_mass = mass + self.mass_epsilon
            saving = code_mass * (-log_det - (dim * (1 + LOG_TWO_PI)) * beta_u) - 5000 * beta_a
        logit = jnp.asarray(self.schedule, mass.dtype)[index] * saving
        return EMTrace(log_ap, r, mass, mu, variance, logit, jax.nn.sigmoid(logit))


def _e_step(V: jax.Array, state: EMTrace) -> jax.Array:
    """Procedure 1, E-step: votes `[J, I, D]` -> the logarithm of `a_j p_j(V_ij)`, `[I, J]`."""
    log_det = jnp.sum(jnp.log(state.variance), axis=1)
    # The deviations are those of the M-step before: they are computed once.
    deviation = jnp.square(V - state.mu[:, None])
    distance = product("jid,jd->ij", deviation, 1 / state.variance, "highest")
    # Of the logit, not of a: an activation that has become 0 would be lost.
    log_a = jax.nn.log_sigmoid(state.logit)
    return (log_a - (V.shape[2] * LOG_TWO_PI + log_det) / 2)[None] - distance / 2
