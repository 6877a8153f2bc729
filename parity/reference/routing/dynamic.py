"""Dynamic routing: Sabour, Frosst and Hinton 2017, arXiv:1710.09829, Procedure 1."""

import torch
from torch import Tensor

from parity.reference._parts import Sizes, Stages, length, numbered, zeros
from parity.reference.models.capsnet import squash
from parity.reference.routing._base import Routing


class Dynamic(Routing):
    """Procedure 1, with what section 2 and the authors' code add to it.

    Args (after those of `Routing`):
      leaky: a further logit of zero takes part in the softmax, and its share is lost.
      prior: the logits start from a parameter `prior` `[I, J]` instead of zero.
      bias: a parameter `bias` `[J, D]` is added before squash, in every iteration.
    """

    def __init__(
        self,
        sizes: Sizes,
        iterations: int = 3,
        *,
        leaky: bool = False,
        prior: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__(sizes, iterations)
        self.leaky = leaky
        self.prior = zeros(sizes.in_capsules, sizes.out_capsules) if prior else None
        self.bias = zeros(sizes.out_capsules, sizes.out_dim) if bias else None

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations and poses are not used."""
        stages: Stages = {}
        b = votes.new_zeros(votes.shape[:3])
        if self.prior is not None:
            b = b + self.prior
        for r in range(1, self.iterations + 1):
            if self.leaky:
                with_orphans = torch.cat([torch.zeros_like(b[:, :, :1]), b], dim=2)
                c = torch.softmax(with_orphans, dim=2)[:, :, 1:]
            else:
                c = torch.softmax(b, dim=2)
            s = torch.einsum("bij,bijd->bjd", c, votes)
            if self.bias is not None:
                s = s + self.bias
            v = squash(s)
            stages |= numbered(r, b=b, c=c, s=s, v=v)
            b = b + torch.einsum("bijd,bjd->bij", votes, v)
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}
