"""Routing by weighted kernel density estimation: Zhang et al. 2018, arXiv:1805.10807."""

import torch
from torch import Tensor, nn

from capsjax import Sizes
from parity.reference._parts import Stages, length


def squash(s: Tensor) -> Tensor:
    """`n / (0.5 + n^2) s` with `n = |s|`, in float64, for whose squares no number is too small."""
    wide = s.double()
    n = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return (n / (0.5 + n**2) * wide).to(s.dtype)


class MeanShift(nn.Module):
    """FRMS, as in the code of Zhao et al. 2019, arXiv:1906.02829.

    Args:
      sizes: what is connected.
      iterations: how often the output is computed.
    """

    def __init__(self, sizes: Sizes, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        stages: Stages = {}
        b = torch.zeros_like(votes[..., 0])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=2)
            w = c / c.sum(dim=1, keepdim=True)
            s = torch.einsum("bij,bijd->bjd", w, votes)
            v = squash(s)
            stages |= {f"b{r}": b, f"c{r}": c, f"w{r}": w, f"s{r}": s, f"v{r}": v}
            b = b + 1 - ((squash(votes) - v.unsqueeze(1)) ** 2).sum(dim=-1)
        return stages | {"capsules": v, "coupling": w, "lengths": length(v)}


class KernelMixture(nn.Module):
    """FREM: EM of a mixture of Gaussian kernels `exp(-d^2)`, see `capsjax.KernelMixtureRouting`.

    Args:
      sizes: what is connected.
      iterations: how often the output is computed.
    """

    def __init__(self, sizes: Sizes, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; poses are not used."""
        stages: Stages = {}
        log_pk = torch.zeros_like(votes[..., 0])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(log_pk, dim=2)
            m = torch.einsum("bij,bi->bj", c, activation)
            s = torch.einsum("bij,bi,bijd->bjd", c, activation, votes) / (m + 1e-5).unsqueeze(-1)
            v = squash(s)
            stages |= {f"log_pk{r}": log_pk, f"c{r}": c, f"m{r}": m, f"s{r}": s, f"v{r}": v}
            distance = ((squash(votes) - v.unsqueeze(1)) ** 2).sum(dim=-1)
            log_pk = torch.log(m + 1e-5).unsqueeze(1) - distance
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}
