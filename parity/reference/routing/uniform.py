"""No routing: Gu and Tresp 2020, arXiv:1911.07968, section 4."""

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, length, numbered
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
