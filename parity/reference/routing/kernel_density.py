"""Routing by weighted kernel density estimation: Zhang et al. 2018, arXiv:1805.10807."""

import torch
from torch import Tensor

from parity.reference._parts import Stages, length, numbered
from parity.reference.routing._base import Routing


def squash(s: Tensor) -> Tensor:
    """`n / (0.5 + n^2) s` with `n = |s|`, in float64, for whose squares no number is too small."""
    wide = s.double()
    n = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return (n / (0.5 + n**2) * wide).to(s.dtype)


class MeanShift(Routing):
    """FRMS, as in the code of Zhao et al. 2019, arXiv:1906.02829."""

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        stages: Stages = {}
        b = torch.zeros_like(votes[..., 0])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=2)
            w = c / c.sum(dim=1, keepdim=True)
            s = torch.einsum("bij,bijd->bjd", w, votes)
            v = squash(s)
            stages |= numbered(r, b=b, c=c, w=w, s=s, v=v)
            b = b + 1 - ((squash(votes) - v.unsqueeze(1)) ** 2).sum(dim=-1)
        return stages | {"capsules": v, "coupling": w, "lengths": length(v)}


class KernelMixture(Routing):
    """FREM: EM of a mixture of Gaussian kernels `exp(-d^2)`."""

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; poses are not used."""
        stages: Stages = {}
        log_pk = torch.zeros_like(votes[..., 0])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(log_pk, dim=2)
            m = torch.einsum("bij,bi->bj", c, activation)
            s = torch.einsum("bij,bi,bijd->bjd", c, activation, votes) / (m + 1e-5).unsqueeze(-1)
            v = squash(s)
            stages |= numbered(r, log_pk=log_pk, c=c, m=m, s=s, v=v)
            distance = ((squash(votes) - v.unsqueeze(1)) ** 2).sum(dim=-1)
            log_pk = torch.log(m + 1e-5).unsqueeze(1) - distance
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}
