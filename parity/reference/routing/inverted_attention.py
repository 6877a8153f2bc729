"""Inverted dot-product attention routing: Tsai et al. 2020, arXiv:2002.04764, Procedure 1."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, numbered, zeros
from parity.reference.routing._base import Routing


class InvertedAttention(Routing):
    """Procedure 1 with the constants of the authors' code, and the class probabilities above it.

    Args (after those of `Routing`):
      presence: whether the output capsules are classes.
    """

    def __init__(self, sizes: Sizes, iterations: int = 2, presence: bool = True) -> None:
        super().__init__(sizes, iterations)
        D = sizes.out_dim
        self.scale = nn.Parameter(torch.ones(D))
        self.bias = zeros(D)
        self.presence = presence
        if presence:
            # A Linear(D, 1) that all classes share.
            self.presence_weight = nn.Parameter(torch.empty(D).uniform_(-(D**-0.5), D**-0.5))
            self.presence_bias = nn.Parameter(torch.empty(1).uniform_(-(D**-0.5), D**-0.5))

    def iterate(self, votes: Tensor, p: Tensor | None) -> Stages:
        """One iteration of a batch, from the poses `[B, J, D]` that the one before has left."""
        B, _, J, D = votes.shape
        seen = votes.new_zeros(B, J, D) if p is None else p
        a = (seen[:, None] * votes).sum(dim=3) * D**-0.5
        r = torch.softmax(a, dim=2)
        if p is not None:
            r = r / (r.sum(dim=2, keepdim=True) + 1e-10)
        s = (r[..., None] * votes).sum(dim=1)
        p = functional.layer_norm(s, (D,), self.scale, self.bias, eps=1e-5)
        presence = torch.sigmoid(self.logits(p)) if self.presence else votes.new_ones(B, J)
        return {"a": a, "r": r, "s": s, "p": p, "presence": presence}

    def logits(self, p: Tensor) -> Tensor:
        """Logits of the class probabilities: poses `[B, J, D]` -> `[B, J]`."""
        return p @ self.presence_weight + self.presence_bias

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        stages: Stages = {}
        state: dict[str, Tensor] = {}
        for t in range(1, self.iterations + 1):
            state = self.iterate(votes, state.get("p"))
            stages |= numbered(t, **state)
        p, r, presence = (state[symbol] for symbol in ("p", "r", "presence"))
        return stages | {"capsules": p, "coupling": r, "lengths": presence}
