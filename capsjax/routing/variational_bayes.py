"""Routing by variational Bayes (Ribeiro, Leontidis and Kollias 2020)."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from capsjax._checks import Fraction, Number, PositiveInt, PositiveNumber
from capsjax.ops._arrays import product
from capsjax.routing._base import Index, LearnedRouting, Parameters, Routed, Sizes
from capsjax.routing._inputs import RoutingInputs

_SHIFT = 8
# B_2n / 2n of the Bernoulli numbers, from n = 1 on.
_ASYMPTOTIC = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)


class VariationalBayesTrace(NamedTuple):
    """Every iteration of routing by variational Bayes on one example.

    An output capsule is a Gaussian with a posterior over its mean `mu_j` and precision `Lambda_j`.

    Attributes:
        r: `[R, I, J]`, the responsibilities `R_ij`: which output capsule an input capsule is of.
        mass: `[R, J]`, `R_j`, the responsibilities of active input capsules together.
        m: `[R, J, D]`, the posterior mean of `mu_j`.
        root: a square root of `Psi_j^-1`, the inverse scale matrix of the posterior of `Lambda_j`:
            `[R, J, D]`, that of the diagonal, or for full matrices `[R, J, D, D]`, the Cholesky
            factor.
        ln_lambda: `[R, J]`, `E[ln |Lambda_j|]`.
        ln_pi: `[R, J]`, `E[ln pi_j]` of the mixing proportions.
        entropy: `[R, J]`, of the Gaussian.
        a: `[R, J]`, the activations of the output capsules, or what they are the sigmoids of.
    """

    r: jax.Array
    mass: jax.Array
    m: jax.Array
    root: jax.Array
    ln_lambda: jax.Array
    ln_pi: jax.Array
    entropy: jax.Array
    a: jax.Array


@dataclasses.dataclass(frozen=True)
class VariationalBayes(LearnedRouting):
    """Votes are explained by a mixture of Gaussians with a posterior over all their parameters.

    Ribeiro, Leontidis and Kollias 2020, Capsule Routing via Variational Bayes, AAAI,
    arXiv:1905.11455, Algorithm 1; the update equations are those of Bishop 2006, Pattern
    Recognition and Machine Learning, section 10.2.1. An output capsule is a component of the
    mixture: its votes have a mean with a Gaussian prior, and a precision with a Wishart prior,
    which keeps variances from collapsing; the mixing proportions have a Dirichlet prior. Its pose
    is the posterior mean, and its activation says how little entropy is left,

        `a_j = sigmoid(beta_a_j - (exp(E[ln pi_j]) H_j + beta_u_j))`,

    as in the authors' code (github.com/fabio-deep/Variational-Capsule-Routing): it is near
    `sigmoid(beta_a_j - beta_u_j)` of a capsule that nothing is routed to, above that where the
    entropy falls below zero, and below where votes are few or scattered. Gradients flow through
    every iteration.

    Their layer also normalises poses, and activations before the sigmoid, over the batch (without
    affine parameters, which takes the betas out again). What depends on batch mates is not a
    routing's: that is left out, and the betas, one each for an output capsule, have their effect.
    For a layer that normalises, there is `activation="logit"`.

    Nothing here is divided by the responsibilities of a capsule, which are zero where nothing below
    is active: scatter around the posterior mean, the prior counted in, is the same matrix as
    scatter around the mean of the votes and a term for how far that is from the prior. It is at
    least `1 / psi0`, so logarithms and roots are of positive numbers. Responsibilities are a
    softmax of logarithms; the authors exponentiate first.

    The defaults are those of the authors' code. Of a prior on a vector or matrix there is one
    number, as all output capsules and pose components start alike.

    Attributes:
        iterations: how often the posterior is computed, 3 in the paper; at least 1.
        cov: covariances of the votes for an output capsule: the variances of `"diag"`, or the
            matrices of `"full"`, for which each iteration factorises `J` of `D x D`.
        alpha0: concentration of the Dirichlet prior on the mixing proportions.
        kappa0: of the Gaussian prior on a mean: how many votes it counts for.
        m0: its mean, in each component.
        nu0: degrees of freedom of the Wishart prior on a precision, more than `D - 1`; None is
            `D + 1`.
        psi0: its scale matrix is this times the identity, and what the posterior starts from the
            inverse of that. The authors add the matrix itself, which is the same for the identity.
        shrinkage: from 0 to 1, for `"full"`: correlations are multiplied by one minus this, so that
            rounding leaves a matrix positive definite where votes are fewer than dimensions, and
            large. The authors' code has none, 0.
        activation: `"sigmoid"`, or `"logit"` for what it is the sigmoid of, without betas: for a
            layer that normalises it over the batch, which would take them out again.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.VariationalBayes()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    iterations: PositiveInt = 3
    cov: Literal["diag", "full"] = "diag"
    alpha0: PositiveNumber = 1.0
    kappa0: PositiveNumber = 1.0
    m0: Number = 0.0
    nu0: PositiveNumber | None = None
    psi0: PositiveNumber = 1.0
    shrinkage: Fraction = 1e-4
    activation: Literal["sigmoid", "logit"] = "sigmoid"

    def parameters(self, sizes: Sizes) -> Parameters:
        self._degrees_of_freedom(sizes.out_dim)
        names = ("beta_a", "beta_u") if self.activation == "sigmoid" else ()
        return dict.fromkeys(names, ((sizes.out_capsules,), 0))

    def _degrees_of_freedom(self, dim: int) -> float:
        """`nu0` for poses of a dimension; a ValueError if it is too small for them."""
        nu0 = float(dim + 1 if self.nu0 is None else self.nu0)
        if nu0 <= dim - 1:
            raise ValueError(
                f"nu0 must be more than {dim - 1} for poses of dimension {dim}, not {self.nu0!r}"
            )
        return nu0

    def prepare(self, inputs: RoutingInputs) -> RoutingInputs:
        return inputs._replace(activation=inputs.wide().activation)

    def first(self, inputs: RoutingInputs) -> VariationalBayesTrace:
        nothing_known = jnp.zeros(inputs.votes.shape[:2], inputs.activation.dtype)
        return self._posterior(inputs, nothing_known)

    def again(
        self, inputs: RoutingInputs, state: VariationalBayesTrace, index: Index
    ) -> VariationalBayesTrace:
        return self._posterior(inputs, self._log_responsibilities(inputs.votes_by_output, state))

    def outcome(self, state: VariationalBayesTrace) -> Routed:
        return Routed(pose=state.m, activation=state.a, coupling=state.r)

    def _posterior(self, inputs: RoutingInputs, log_r: jax.Array) -> VariationalBayesTrace:
        """The distributions of all output capsules, of what the responsibilities are softmax of."""
        votes, parameters = inputs.votes_by_output, inputs.parameters
        r = inputs.softmax(log_r)
        dtype, D = r.dtype, votes.shape[-1]
        weight = r * inputs.activation[:, None]
        mass = jnp.sum(weight, axis=0)
        alpha, kappa = self.alpha0 + mass, self.kappa0 + mass
        nu = self._degrees_of_freedom(D) + mass

        total = product("ij,jid->jd", weight.astype(votes.dtype), votes)
        m = (total + self.kappa0 * self.m0) / kappa[:, None]
        root = self._root_of_scatter(votes, weight, m)

        diagonal = root if self.cov == "diag" else jnp.diagonal(root, axis1=-2, axis2=-1)
        halves = (nu[:, None] - jnp.arange(D, dtype=dtype)[None]) / 2
        # By component, in which the large terms cancel.
        ln_lambda = jnp.sum(_digamma(halves) - 2 * jnp.log(diagonal / math.sqrt(2)), axis=-1)
        ln_pi = _digamma_over(alpha, jnp.sum(alpha))

        entropy = D / 2 * math.log(2 * math.pi * math.e) - ln_lambda / 2
        weighted = jnp.exp(ln_pi) * entropy
        if self.activation == "logit":
            a = -weighted
        else:
            a = jax.nn.sigmoid(parameters["beta_a"] - (weighted + parameters["beta_u"]))
        return VariationalBayesTrace(r, mass, m, root, ln_lambda, ln_pi, entropy, a)

    def _root_of_scatter(self, votes: jax.Array, weight: jax.Array, m: jax.Array) -> jax.Array:
        """A square root of `Psi_j^-1`: of votes `[J, I, D]` around `m_j`, and the priors' part."""
        around, from_prior = votes.astype(m.dtype) - m[:, None], m - self.m0
        if self.cov == "diag":
            scatter = _exact("ij,jid->jd", weight, jnp.square(around))
            scatter = scatter + self.kappa0 * jnp.square(from_prior)
            return jnp.sqrt(scatter + 1 / self.psi0)
        scatter = _exact("jid,jie->jde", weight.T[..., None] * around, around)
        scatter = scatter + self.kappa0 * from_prior[:, :, None] * from_prior[:, None, :]
        identity = jnp.eye(m.shape[-1], dtype=m.dtype)[None]
        scatter = scatter + identity / self.psi0

        # The factor of correlations, scaled: large variances beside small ones cost no precision.
        deviation = jnp.sqrt(jnp.diagonal(scatter, axis1=-2, axis2=-1))
        correlation = scatter / deviation[:, :, None] / deviation[:, None, :]
        kept = 1 - self.shrinkage
        correlation = jnp.where(identity == 1, 1, kept * correlation)
        return deviation[:, :, None] * jnp.linalg.cholesky(correlation)

    def _log_responsibilities(self, votes: jax.Array, state: VariationalBayesTrace) -> jax.Array:
        """Votes `[J, I, D]` -> `[I, J]`, up to a term that all output capsules have alike."""
        D = votes.shape[-1]
        kappa, nu = self.kappa0 + state.mass, self._degrees_of_freedom(D) + state.mass
        around = votes.astype(state.m.dtype) - state.m[:, None]
        if self.cov == "diag":
            # The squares are those of the scatter before: they are computed once.
            distance = _exact("jid,jd->ij", jnp.square(around), jnp.square(1 / state.root))
        else:
            # Inverted once, for there are far more votes than dimensions.
            identity = jnp.broadcast_to(jnp.eye(D, dtype=around.dtype), state.root.shape)
            inverse = solve_triangular(state.root, identity, lower=True)
            whitened = _exact("jde,jie->jid", inverse, around)
            distance = jnp.sum(jnp.square(whitened), axis=-1).T
        expected = D / kappa[None] + nu[None] * distance
        return (state.ln_pi + state.ln_lambda / 2)[None] - expected / 2


@jax.jit  # traced once for all that call it
def _below_log(x: jax.Array) -> jax.Array:
    """By how much the digamma function of `x` is less than the logarithm of `x + _SHIFT`."""
    # Added one by one from the largest on: the sum of an array rounds more.
    recurrence = sum((1 / (x + k) for k in range(1, _SHIFT)), start=1 / x)
    last = 1 / (x + _SHIFT)
    return recurrence + (last / 2 + _series(_ASYMPTOTIC, last))


@jax.jit
def _trigamma(x: jax.Array) -> jax.Array:
    """The derivative of the digamma function."""
    inverses = _inverses(x)
    last = inverses[..., -1]
    slopes = [2 * n * coefficient for n, coefficient in enumerate(_ASYMPTOTIC, 1)]
    beyond = last * (1 + _series(slopes, last)) - jnp.square(last) / 2
    return jnp.sum(jnp.square(inverses), axis=-1) + beyond


def _inverses(x: jax.Array) -> jax.Array:
    """Those of `x + k`, for k from 0 to `_SHIFT`, along a last axis."""
    k = lax.broadcasted_iota(x.dtype, (*x.shape, _SHIFT + 1), x.ndim)
    return 1 / (x[..., None] + k)


def _series(coefficients: Sequence[float], x: jax.Array) -> jax.Array:
    """The polynomial of these coefficients of the square of `x`, without a constant."""
    series, square = jnp.zeros_like(x), jnp.square(x)
    for coefficient in reversed(coefficients):
        series = (series + coefficient) * square
    return series


# The derivative by hand: of each term that a formula and its derivative spell out, the compiler
# would make a program of its own, hundreds in a network.
@jax.custom_jvp
def _digamma(x: jax.Array) -> jax.Array:
    """The digamma function of positive numbers, by its recurrence and its asymptotic series.

    JAX's own is wrong by 1e-6 in float32, which the normalisation of activations over a batch makes
    visible, and its derivative is a series of its own for each number.
    """
    return jnp.log(x + _SHIFT) - _below_log(x)


_digamma.defjvps(lambda tangent, _, x: tangent * _trigamma(x))


@jax.custom_jvp
def _digamma_over(x: jax.Array, y: jax.Array) -> jax.Array:
    """The digamma function of `x` less that of `y`, with one logarithm, of their ratio."""
    return jnp.log((x + _SHIFT) / (y + _SHIFT)) - (_below_log(x) - _below_log(y))


_digamma_over.defjvps(
    lambda tangent, _, x, y: tangent * _trigamma(x),
    lambda tangent, _, x, y: jnp.broadcast_to(-tangent * _trigamma(y), x.shape),
)


# In the arrays' own precision: rounded to less, a matrix may not be positive definite.
_exact = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
