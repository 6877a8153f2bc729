"""Inverted dot-product attention routing: Tsai et al. 2020, arXiv:2002.04764, Procedure 1."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsjax import Sizes
from parity.reference._parts import Stages


class InvertedAttention(nn.Module):
    """Procedure 1 with the constants of the authors' code, and the class probabilities above it.

    Args:
      sizes: what is connected.
      iterations: how often the poses are computed.
    """

    def __init__(self, sizes: Sizes, iterations: int = 2) -> None:
        super().__init__()
        self.iterations = iterations
        D = sizes.out_dim
        self.scale = nn.Parameter(torch.ones(D))
        self.bias = nn.Parameter(torch.zeros(D))
        # A Linear(D, 1) that all classes share.
        self.presence_weight = nn.Parameter(torch.empty(D).uniform_(-(D**-0.5), D**-0.5))
        self.presence_bias = nn.Parameter(torch.empty(1).uniform_(-(D**-0.5), D**-0.5))

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        B, _, J, D = votes.shape
        stages: Stages = {}
        p = votes.new_zeros(B, J, D)
        for t in range(1, self.iterations + 1):
            a = (p[:, None] * votes).sum(dim=3) * D**-0.5
            r = torch.softmax(a, dim=2)
            if t > 1:
                r = r / (r.sum(dim=2, keepdim=True) + 1e-10)
            s = (r[..., None] * votes).sum(dim=1)
            p = functional.layer_norm(s, (D,), self.scale, self.bias, eps=1e-5)
            presence = torch.sigmoid(p @ self.presence_weight + self.presence_bias)
            stages |= {f"a{t}": a, f"r{t}": r, f"s{t}": s, f"p{t}": p, f"presence{t}": presence}
        return stages | {"capsules": p, "coupling": r, "lengths": presence}
