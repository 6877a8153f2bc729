"""The network of Gu and Tresp 2020: where capsules count alike, votes need not be made."""

import torch
from torch import Tensor

from parity.bench.fast.parts import decoded, squash
from parity.reference._parts import Stages
from parity.reference.models import AffCapsNet


class FastAffCapsNet(AffCapsNet):
    """`parity.reference.models.AffCapsNet`: the sum of all votes is one of the sum of all poses."""

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        maps = self.primary_caps.conv(torch.relu(self.features.conv(images)))
        u = squash(maps.unflatten(1, (self.types, self.dim)), dim=2)
        (W,) = self.class_caps.kernel  # [J, D, K], which all share
        s = u.sum(dim=(1, 3, 4)) @ W.flatten(0, 1).T / len(W)
        v = squash(s.unflatten(1, W.shape[:2]))
        return decoded(v, labels, self.decoder)
