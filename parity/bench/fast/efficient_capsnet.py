"""Efficient-CapsNet."""

import math

import torch
from torch import Tensor

from parity.bench.fast.parts import decoded, dense_votes
from parity.reference._parts import Stages, nhwc
from parity.reference.models import EfficientCapsNet


class FastEfficientCapsNet(EfficientCapsNet):
    """`parity.reference.models.EfficientCapsNet`."""

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(torch.relu(convolution(x)))
        s = nhwc(self.primary_caps.conv(x))
        u = squash(s.reshape(len(s), -1, self.dim))
        votes = dense_votes(u, self.class_caps.kernel)  # [B, J, I, D]
        of_all = votes.sum(dim=2)[..., None]
        c = torch.softmax(torch.matmul(votes, of_all) / math.sqrt(votes.shape[3]), dim=1)
        c_b = c + self.class_caps.routing.prior.T[:, :, None]  # [B, J, I, 1]
        v = squash(torch.matmul(c_b.transpose(2, 3), votes).squeeze(2))
        return decoded(v, labels, self.decoder)


def squash(s: Tensor) -> Tensor:
    """`(1 - e^-|s|) s / |s|` over the last axis."""
    n = s.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return s * (-torch.expm1(-n) / n)
