"""Variational Bayes: Ribeiro, Leontidis and Kollias 2020, arXiv:1905.11455, Algorithm 1."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from parity.reference._parts import Sizes, Stages, numbered, zeros
from parity.reference.routing._base import Routing, over_parents


class VariationalBayes(Routing):
    """A Bayesian mixture of Gaussians with diagonal covariances, and the authors' priors.

    The priors: Dirichlet with a concentration of 1, a mean of zero that counts for one vote, and a
    Wishart distribution with `D + 1` degrees of freedom and the identity for a scale matrix. The
    numbers (10.51) and so on are those of Bishop 2006, section 10.2.

    Args (after those of `Routing`):
      logits: whether activations are left as what they are the sigmoids of, without betas.
    """

    def __init__(self, sizes: Sizes, iterations: int = 3, logits: bool = False) -> None:
        super().__init__(sizes, iterations)
        self.logits = logits
        if not logits:
            self.beta_a = zeros(sizes.out_capsules)
            self.beta_u = zeros(sizes.out_capsules)

    def forward(
        self,
        votes: Tensor,
        activation: Tensor,
        pose: Tensor,
        softmax: Callable[[Tensor], Tensor] = over_parents,
    ) -> Stages:
        """Routes a batch; poses are not used."""
        stages: Stages = {}
        D = votes.shape[3]
        alpha0, kappa0, nu0, inverse_psi0 = 1.0, 1.0, D + 1.0, 1.0
        R = softmax(torch.zeros_like(votes[..., 0]))
        # What is no normal number is zero, and so is its gradient: XLA takes such lengths for zero.
        tiny = torch.finfo(activation.dtype).tiny
        activation = torch.where(activation < tiny, 0 * activation, activation)
        for r in range(1, self.iterations + 1):
            # M: the mean and the scatter of the votes that each output capsule is responsible for.
            # Divided by its responsibilities in float64: they may be 1e-40, and the gradient large.
            weight = (R * activation[:, :, None]).double()
            mass = weight.sum(dim=1)  # (10.51)
            divisor = torch.where(mass == 0, 1, mass)[..., None]
            mean = (weight[..., None] * votes).sum(dim=1) / divisor  # (10.52)
            scatter = (weight[..., None] * (votes - mean[:, None]) ** 2).sum(dim=1)  # (10.53)
            kappa = kappa0 + mass  # (10.60)
            m = (mass / kappa)[..., None] * mean  # (10.61)
            shift = (kappa0 * mass / kappa)[..., None] * mean**2
            inverse_psi = inverse_psi0 + scatter + shift  # (10.62)
            mass, kappa, m, inverse_psi = (x.to(R.dtype) for x in (mass, kappa, m, inverse_psi))
            alpha, nu = alpha0 + mass, nu0 + mass  # (10.58), (10.63)

            ln_lambda = D * math.log(2) - torch.log(inverse_psi).sum(dim=-1)  # (10.65)
            for d in range(D):
                ln_lambda = ln_lambda + digamma((nu - d) / 2)
            ln_pi = digamma(alpha) - digamma(alpha.sum(dim=1, keepdim=True))  # (10.66)
            entropy = D / 2 * math.log(2 * math.pi * math.e) - ln_lambda / 2
            a = -torch.exp(ln_pi) * entropy
            if not self.logits:
                a = torch.sigmoid(self.beta_a - self.beta_u + a)
            stages |= numbered(r, r=R, mass=mass, m=m, root=torch.sqrt(inverse_psi))
            stages |= numbered(r, ln_lambda=ln_lambda, ln_pi=ln_pi, entropy=entropy, a=a)

            # E: which of them each vote is of, (10.46), (10.64), (10.49).
            squares = ((votes - m[:, None]) ** 2 / inverse_psi[:, None]).sum(dim=-1)
            distance = D / kappa[:, None] + nu[:, None] * squares
            ln_rho = (
                ln_pi[:, None] + (ln_lambda[:, None] - D * math.log(2 * math.pi) - distance) / 2
            )
            coupling, R = R, softmax(ln_rho)
        return stages | {"capsules": m, "coupling": coupling, "lengths": a}


def digamma(x: Tensor) -> Tensor:
    """The derivative of the logarithm of the gamma function, for positive numbers.

    By its recurrence up to where the asymptotic series is exact: the derivative of PyTorch's own is
    right in nine digits only.
    """
    smaller: Tensor | float = 0.0
    for _ in range(10):
        smaller = smaller + 1 / x
        x = x + 1
    series = torch.log(x) - 1 / (2 * x)
    bernoulli = {2: 1 / 6, 4: -1 / 30, 6: 1 / 42, 8: -1 / 30, 10: 5 / 66, 12: -691 / 2730}
    for n, number in bernoulli.items():
        series = series - number / n * x**-n
    return series - smaller
