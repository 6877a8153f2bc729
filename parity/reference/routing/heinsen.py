"""Benefit to use and cost to ignore: Heinsen 2019, arXiv:1911.00792."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsjax import Sizes
from parity.reference._parts import Stages


class Heinsen(nn.Module):
    """Three steps an iteration: expectation, data, maximisation, with Gaussian mixtures.

    Args:
      sizes: what is connected.
      iterations: how often the output is computed.
      epsilon: added to divisors and variances.
    """

    def __init__(self, sizes: Sizes, iterations: int = 3, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.iterations = iterations
        self.epsilon = epsilon
        self.beta_use = nn.Parameter(torch.zeros(sizes.in_capsules, sizes.out_capsules))
        self.beta_ign = nn.Parameter(torch.zeros(sizes.in_capsules, sizes.out_capsules))

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
            total = D_use.sum(dim=1)[:, :, None] + self.epsilon
            mu = torch.einsum("bij,bijd->bjd", D_use, votes) / total
            squares = (votes - mu[:, None]) ** 2
            sigma_squared = torch.einsum("bij,bijd->bjd", D_use, squares) / total + self.epsilon
            stages |= {
                f"R{r}": R,
                f"D_use{r}": D_use,
                f"D_ign{r}": D_ign,
                f"a_out{r}": a,
                f"mu_out{r}": mu,
                f"sigma_squared_out{r}": sigma_squared,
            }
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
