"""k-means routing: Ren and Lu 2018, arXiv:1810.09177."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsjax import Sizes
from parity.reference._parts import Stages, length
from parity.reference.models.capsnet import squash


class KMeans(nn.Module):
    """Votes are assigned to the directions of centres, and centres are sums of votes.

    Args:
      sizes: what is connected.
      iterations: how often votes are assigned.
    """

    def __init__(self, sizes: Sizes, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

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
            stages |= {f"b{r}": b, f"c{r}": c, f"s{r}": s, f"v{r}": v}
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}
