"""Self-routing: Hahn, Pyeon and Kim 2019, Self-Routing Capsule Networks, NeurIPS, section 3."""

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, numbered, zeros


class SelfRouting(nn.Module):
    """A linear routing network for each capsule below, and a mixture of what all of them say."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        I, K, J, _ = sizes  # noqa: E741
        self.kernel = zeros(I, J, K)
        self.bias = zeros(I, J)

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch."""
        # Input capsule by input capsule, as each has its own network.
        logits = torch.stack(
            [u @ W.T + b for u, W, b in zip(pose.unbind(1), self.kernel, self.bias, strict=True)],
            dim=1,
        )
        c = torch.softmax(logits, dim=2)
        gate = c * activation[:, :, None]
        a = self.divide(gate.sum(dim=1), activation.sum(dim=1, keepdim=True))
        u = (self.divide(gate, gate.sum(dim=1, keepdim=True))[..., None] * votes).sum(dim=1)
        stages = numbered(1, logits=logits, c=c, a=a, u=u)
        return stages | {"capsules": u, "coupling": c, "lengths": a}

    def divide(self, part: Tensor, whole: Tensor) -> Tensor:
        """The quotient, or zero where the whole is none: at most 1e-12."""
        is_none = whole <= 1e-12
        # Divided by one there, and not by a zero whose gradient would come through as NaN.
        return torch.where(is_none, 0 * part, part / torch.where(is_none, 1, whole))
