"""k-means routing: Ren and Lu 2018, arXiv:1810.09177."""

import torch
from torch import Tensor
from torch.nn import functional

from parity.reference._parts import Stages, length, numbered
from parity.reference.models.capsnet import squash
from parity.reference.routing._base import Routing


class KMeans(Routing):
    """Votes are assigned to the directions of centres, and centres are sums of votes."""

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        stages: Stages = {}
        s = votes.sum(dim=1) / votes.shape[2]
        for r in range(1, self.iterations + 1):
            # In float64, so that every centre but zero has a direction.
            towards = functional.normalize(s.double(), dim=2, eps=1e-200).to(s.dtype)
            b = (votes * towards[:, None]).sum(dim=3)
            c = torch.softmax(b, dim=2)
            s = (c[..., None] * votes).sum(dim=1)
            v = squash(s)
            stages |= numbered(r, b=b, c=c, s=s, v=v)
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}
