"""CapsNet: votes of all examples are one batched product, each routing iteration two."""

import torch
from torch import Tensor

from parity.bench.fast.parts import agree, decoded, dense_votes, squash
from parity.reference import CapsNet
from parity.reference._parts import Stages


class FastCapsNet(CapsNet):
    """`parity.reference.CapsNet`."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` -> `lengths` `[B, J]` and `reconstruction` `[B, H W C]`."""
        primary = self.primary(torch.relu(self.conv1(images)))
        # [B, T K, y, x] -> [B, I, K], capsule by position and then type.
        u = primary.permute(0, 2, 3, 1).reshape(len(images), -1, self.primary_dim)
        votes = dense_votes(squash(u), self.class_caps.weight)
        return decoded(agree(votes, self.iterations), labels, self.decode)
