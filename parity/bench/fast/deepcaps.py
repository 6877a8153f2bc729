"""DeepCaps: capsules stay maps NCHW, and the routed layer is one convolution of all types."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.bench.fast.parts import agree, decoded, dense_votes, squash
from parity.reference._parts import Stages, nhwc
from parity.reference.models import DeepCaps
from parity.reference.models.deepcaps import padded


class FastDeepCaps(DeepCaps):
    """`parity.reference.models.DeepCaps`."""

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        x = self.norm(torch.relu(self.convolution(images)))
        flat = []
        cells: Any = self.cells
        for number, cell in enumerate(cells):
            first = self.squashed(cell["enter"].pose, x, stride=2)
            middle = self.squashed(cell["middle"].pose, first)
            leave = self.squashed(cell["leave"].pose, middle)
            if number < len(self.cells) - 1:
                past = self.squashed(cell["shortcut"].pose, first)
            else:
                past = self.routed_maps(cell["shortcut"].conv, first)
            x = leave + past
            flat.append(nhwc(x).reshape(len(x), -1, x.shape[1] // self.types))
        u = torch.cat([flat[-1], flat[-2]], dim=1)
        v = agree(dense_votes(u, self.class_caps.kernel), self.routing.iterations)
        return decoded(v, labels, self.decode)

    def squashed(self, convolution: nn.Conv2d, x: Tensor, stride: int = 1) -> Tensor:
        """Maps NCHW -> poses as maps `[B, types dim, H, W]`."""
        if stride == 1:
            s = functional.conv2d(x, convolution.weight, padding=1)
        else:
            s = functional.conv2d(padded(x, stride), convolution.weight, stride=stride)
        return squash(s.unflatten(1, (self.types, -1)), dim=2).flatten(1, 2)

    def routed_maps(self, convolution: nn.Conv2d, below: Tensor) -> Tensor:
        """A convolution of each type, and the routing of all: maps as of `squashed`."""
        batch, channels, height, width = below.shape
        dim = channels // self.types
        of_each = below.reshape(batch * self.types, dim, height, width)
        votes = functional.conv2d(of_each, convolution.weight, padding=1)
        # [B, I, J types, D, H, W] -> [B, J = (types, H, W), I, D].
        votes = votes.reshape(batch, self.types, self.types, dim, height, width)
        votes = votes.permute(0, 2, 4, 5, 1, 3).flatten(1, 3)
        v = agree(votes, self.routing.iterations)
        v = v.reshape(batch, self.types, height, width, dim).permute(0, 1, 4, 2, 3)
        return v.reshape(below.shape)

    def decode(self, masked: Tensor) -> Tensor:
        channels, height, width = self.small
        x = torch.relu(self.decoder.dense(masked.sum(dim=1)))
        x = x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        x = self.decoder.norm(x)
        for convolution in self.decoder.convolutions:
            stride = convolution.stride[0]
            start = max(3 - stride, 0) // 2
            height, width = stride * height, stride * width
            x = convolution(x)[:, :, start : start + height, start : start + width]
        height, width, _ = self.image_shape
        return torch.relu(x[:, :, :height, :width]).permute(0, 2, 3, 1)
