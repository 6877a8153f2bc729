"""No routing: Gu and Tresp 2020, arXiv:1911.07968, section 4; and coupling that is drawn once."""

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, length, numbered, zeros
from parity.reference.models.capsnet import squash


class Uniform(nn.Module):
    """Every vote weighs `1 / J`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        J = votes.shape[2]
        c = torch.full_like(votes[..., 0], 1 / J)
        s = (votes / J).sum(dim=1)
        v = squash(s)
        stages = numbered(1, c=c, s=s, v=v)
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}


class Random(nn.Module):
    """Every vote weighs what was drawn for its two capsules, a softmax over those above."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.drawn = zeros(sizes.in_capsules, sizes.out_capsules)

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used, and the logits are not learned."""
        logits = self.drawn.detach() + 0 * self.drawn  # whose gradient is zero, not missing
        c = torch.softmax(logits, dim=1).expand_as(votes[..., 0])
        s = (c[..., None] * votes).sum(dim=1)
        v = squash(s)
        stages = numbered(1, c=c, s=s, v=v)
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}
