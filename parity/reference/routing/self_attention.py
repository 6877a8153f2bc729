"""Self-attention routing: Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491."""

import math

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, length, numbered, zeros


def exponential_squash(s: Tensor) -> Tensor:
    """`v = (1 - 1 / (e^|s| + eps)) * s / (|s| + eps)`, with the authors' `eps` of 1e-20.

    The derivative at zero is the identity. Computed in float64, the first factor as `e^-|s|` times
    `e^|s| + eps - 1` over `e^-|s|` times `e^|s| + eps`, and returned in the dtype of `s`. What has
    no normal number there is zero, which processors may take it for: a rectifier above tells a
    zero from the smallest number greater than zero.
    """
    eps, wide = 1e-20, s.double()
    n = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    decay = torch.exp(-n)
    first = (eps * decay - torch.expm1(-n)) / (1 + eps * decay)
    v = (first / (n + eps) * wide).to(s.dtype)
    too_small = torch.where(v.abs() < torch.finfo(v.dtype).tiny, v, torch.zeros_like(v))
    return v - too_small.detach()


class SelfAttention(nn.Module):
    """One pass, as in the authors' code; the prior `[I, J]` is added after the softmax."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.prior = zeros(sizes.in_capsules, sizes.out_capsules)

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        D = votes.shape[3]
        a = torch.einsum("bijd,bkjd->bij", votes, votes) / math.sqrt(D)
        c = torch.softmax(a, dim=2)
        c_b = c + self.prior
        s = torch.sum(c_b[..., None] * votes, dim=1)
        v = exponential_squash(s)
        stages = numbered(1, a=a, c=c, c_b=c_b, s=s, v=v)
        return stages | {"capsules": v, "coupling": c_b, "lengths": length(v)}
