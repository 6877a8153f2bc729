"""EM routing: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", Procedure 1.

The constants are those of the authors' own code, `capsule_em` of google-research.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsjax import Sizes
from parity.reference._parts import Stages


class EM(nn.Module):
    """A diagonal Gaussian for each output capsule, fitted to the votes in turns.

    Args:
      sizes: what is connected.
      iterations: how often the Gaussians are fitted.
    """

    def __init__(self, sizes: Sizes, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations
        self.beta_u = nn.Parameter(torch.full((sizes.out_capsules,), 0.5))
        self.beta_a = nn.Parameter(torch.full((sizes.out_capsules,), 0.5))

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; poses are not used."""
        stages: Stages = {}
        D = votes.shape[3]
        log_ap = torch.zeros_like(votes[..., 0])
        mu = torch.zeros_like(votes[:, 0])
        for t in range(1, self.iterations + 1):
            # M-step.
            r = torch.softmax(log_ap, dim=2)
            assigned = torch.einsum("bij,bi->bij", r, activation)
            mass = assigned.sum(dim=1)
            denominator = (mass + 1e-5).unsqueeze(-1)
            mu = 0.9 * torch.einsum("bij,bijd->bjd", assigned, votes) / denominator + 0.1 * mu
            noise = (votes - mu.unsqueeze(1)) ** 2
            variance = torch.einsum("bij,bijd->bjd", assigned, noise) / denominator + 0.0005
            sum_log_variance = variance.log().sum(dim=-1)
            inverse_temperature = 0.01 * (1 - 0.95**t)
            entropy = self.beta_u * D * (1 + math.log(2 * math.pi))
            win = (mass + 1e-5) * (-sum_log_variance - entropy)
            logit = inverse_temperature * (win - 5000 * self.beta_a)
            a = torch.sigmoid(logit)
            stages |= {
                f"log_ap{t}": log_ap,
                f"r{t}": r,
                f"mass{t}": mass,
                f"mu{t}": mu,
                f"variance{t}": variance,
                f"logit{t}": logit,
                f"a{t}": a,
            }
            # E-step.
            log_p = -0.5 * (
                D * math.log(2 * math.pi)
                + sum_log_variance.unsqueeze(1)
                + (noise / variance.unsqueeze(1)).sum(dim=-1)
            )
            log_ap = functional.logsigmoid(logit).unsqueeze(1) + log_p
        return stages | {"capsules": mu, "coupling": r, "lengths": a}
