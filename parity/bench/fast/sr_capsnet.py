"""Self-routing capsules on a residual network: all routing networks are one batched product."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parity.bench.fast.parts import normalized, residual
from parity.bench.fast.windows import cut
from parity.reference._parts import Stages
from parity.reference.models import SRCapsNet
from parity.reference.windows import Windows


class FastSRCapsNet(SRCapsNet):
    """`parity.reference.models.SRCapsNet`."""

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        maps = functional.relu(normalized(self.features.stem, images), inplace=True)
        for block in self.features.blocks:
            maps = residual(block, maps)
        M, logits = self.primary_caps.pose(maps).split([self.types * self.dim, self.types], dim=1)
        u = self.on_grid(self.primary_norm.pose(M))
        a = torch.sigmoid(self.primary_norm.activation(logits)).permute(0, 2, 3, 1)
        layers: Any = zip(self.conv_caps, self.conv_norms, strict=True)
        for index, (layer, norm) in enumerate(layers):
            u = functional.pad(u, (0, 0, 0, 0, 1, 1, 1, 1))
            a = functional.pad(a, (0, 0, 1, 1, 1, 1))
            height, width = a.shape[1:3]
            windows = Windows((height, width), 3, 2 if index == 0 else 1)
            seen, on = cut(windows, u).flatten(1, 3), cut(windows, a).flatten(1)  # [I, N, ...]
            gate, a = shares(layer.routing, seen, on)
            # A mixture of poses for each type of the matrices, one product each.
            mixed = gate[..., None] * seen[:, :, None]  # [I, N, J, K]
            u = torch.einsum("injk,ijdk->njd", mixed, layer.kernel)
            u, a = (x.unflatten(0, (-1, *windows.counts)) for x in (u, a))
            u = self.on_grid(norm.pose(u.flatten(3).permute(0, 3, 1, 2)))
        seen, on = u.flatten(1, 3).transpose(0, 1), a.flatten(1).T
        _, a = shares(self.class_caps.routing, seen, on)
        return {"lengths": a}


def shares(routing: Any, u: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Poses `[I, N, K]`, activations `[I, N]` -> shares of votes `[I, N, J]`, activations `[N, J]`.

    The shares of a capsule above are 1 in sum.
    """
    logits = torch.baddbmm(routing.bias[:, None], u, routing.kernel.transpose(1, 2))
    gate = torch.softmax(logits, dim=2) * a[..., None]
    total = gate.sum(dim=0)
    return divide(gate, total), divide(total, a.sum(dim=0)[:, None])


def divide(part: Tensor, whole: Tensor) -> Tensor:
    """The quotient, or zero where the whole is none: at most 1e-12."""
    return part * torch.where(whole > 1e-12, 1 / whole.clamp_min(1e-12), 0)
