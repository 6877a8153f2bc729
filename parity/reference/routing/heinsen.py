"""Benefit to use and cost to ignore: Heinsen 2019, arXiv:1911.00792."""

import torch
from torch import Tensor
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, numbered, zeros
from parity.reference.routing._base import Routing

EPSILON = 1e-5
"""Added to divisors and variances."""


class Heinsen(Routing):
    """Three steps an iteration: expectation, data, maximisation, with Gaussian mixtures."""

    def __init__(self, sizes: Sizes, iterations: int = 3) -> None:
        super().__init__(sizes, iterations)
        self.beta_use = zeros(sizes.in_capsules, sizes.out_capsules)
        self.beta_ign = zeros(sizes.in_capsules, sizes.out_capsules)

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; poses are not used, activations are the paper's `f(a_inp)`."""
        stages: Stages = {}
        J = votes.shape[2]
        data = activation[:, :, None].expand(-1, -1, J)  # [B, I, J]
        R = torch.full_like(data, 1 / J)
        for r in range(1, self.iterations + 1):
            D_use = data * R
            D_ign = data - D_use
            a = (self.beta_use * D_use).sum(dim=1) - (self.beta_ign * D_ign).sum(dim=1)
            total = D_use.sum(dim=1)[:, :, None] + EPSILON
            mu = torch.einsum("bij,bijd->bjd", D_use, votes) / total
            squares = (votes - mu[:, None]) ** 2
            sigma_squared = torch.einsum("bij,bijd->bjd", D_use, squares) / total + EPSILON
            stages |= numbered(r, R=R, D_use=D_use, D_ign=D_ign)
            stages |= numbered(r, a_out=a, mu_out=mu, sigma_squared_out=sigma_squared)
            coupling = R
            R = torch.softmax(self.logits(votes, a, mu, sigma_squared), dim=2)
        return stages | {"capsules": mu, "coupling": coupling, "lengths": torch.sigmoid(a)}

    def logits(self, votes: Tensor, a: Tensor, mu: Tensor, sigma_squared: Tensor) -> Tensor:
        """The next expectation before it is normalised, `[B, I, J]`, component by component."""
        logits = functional.logsigmoid(a)[:, None, :].expand(votes.shape[:3])
        for d in range(votes.shape[3]):
            mean, variance = mu[:, None, :, d], sigma_squared[:, None, :, d]
            distance = (votes[..., d] - mean) ** 2
            logits = logits - distance / (2 * variance) - variance.log() / 2
        return logits
