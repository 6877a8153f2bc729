"""EM routing: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", Procedure 1.

The constants are those of the authors' own code, `capsule_em` of google-research.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, numbered
from parity.reference.routing._base import Routing, over_parents


class EM(Routing):
    """A diagonal Gaussian for each output capsule, fitted to the votes in turns.

    Args (after those of `Routing`):
      inverse_temperature: what that of an activation tends to.
      beta_u: what it starts from.
      beta_a: what it starts from.
    """

    def __init__(
        self,
        sizes: Sizes,
        iterations: int = 3,
        inverse_temperature: float = 0.01,
        beta_u: float = 0.5,
        beta_a: float = 0.5,
    ) -> None:
        super().__init__(sizes, iterations)
        self.inverse_temperature = inverse_temperature
        self.beta_u = nn.Parameter(torch.full((sizes.out_capsules,), beta_u))
        self.beta_a = nn.Parameter(torch.full((sizes.out_capsules,), beta_a))

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
        log_ap = torch.zeros_like(votes[..., 0])
        mu = torch.zeros_like(votes[:, 0])
        for t in range(1, self.iterations + 1):
            # M-step.
            r = softmax(log_ap)
            assigned = torch.einsum("bij,bi->bij", r, activation)
            mass = assigned.sum(dim=1)
            denominator = (mass + 1e-5).unsqueeze(-1)
            mu = 0.9 * torch.einsum("bij,bijd->bjd", assigned, votes) / denominator + 0.1 * mu
            noise = (votes - mu.unsqueeze(1)) ** 2
            variance = torch.einsum("bij,bijd->bjd", assigned, noise) / denominator + 0.0005
            sum_log_variance = variance.log().sum(dim=-1)
            inverse_temperature = self.inverse_temperature * (1 - 0.95**t)
            entropy = self.beta_u * D * (1 + math.log(2 * math.pi))
            win = (mass + 1e-5) * (-sum_log_variance - entropy)
            logit = inverse_temperature * (win - 5000 * self.beta_a)
            a = torch.sigmoid(logit)
            stages |= numbered(t, log_ap=log_ap, r=r, mass=mass, mu=mu, variance=variance)
            stages |= numbered(t, logit=logit, a=a)
            # E-step.
            log_p = -0.5 * (
                D * math.log(2 * math.pi)
                + sum_log_variance.unsqueeze(1)
                + (noise / variance.unsqueeze(1)).sum(dim=-1)
            )
            log_ap = functional.logsigmoid(logit).unsqueeze(1) + log_p
        return stages | {"capsules": mu, "coupling": r, "lengths": a}
