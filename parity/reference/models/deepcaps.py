"""The network of Rajasegaran et al. 2019, arXiv:1904.09546: DeepCaps."""

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, batch_norm, group, length, nhwc, zeros
from parity.reference.models._base import ModelReference, capsule_stages, with_decoder
from parity.reference.models.capsnet import squash
from parity.reference.routing.dynamic import Dynamic

CELL = ("enter", "middle", "leave", "shortcut")


class DeepCaps(ModelReference):
    """Convolutions squashed by capsules, with a shortcut in every cell, and the last one routed."""

    parts = (
        "convolution",
        "norm",
        *(f"cells.{cell}.{layer}" for cell in range(2) for layer in CELL),
        "class_caps",
        "decoder",
    )
    tiny: ClassVar = {
        "image_shape": (10, 13, 2),
        "num_classes": 10,
        "conv_features": 5,
        "types": 3,
        "dims": (4, 4),
        "class_dim": 6,
        "decoder_channels": 7,
        "decoder_features": (8, 9),
        "decoder_strides": (1, 2),
    }
    routings: ClassVar = {"routing": "dynamic", "grid_routing": "dynamic"}
    normalises_batch = True
    longest_sums = (260, 5 * 7 * 9 * 12)

    def __init__(self, *, iterations: int, **sizes: Any) -> None:
        super().__init__()
        self.routing = Dynamic(Sizes(0, 0, 0, 0), iterations)
        height, width, channels = self.image_shape = sizes["image_shape"]
        types, dims = sizes["types"], sizes["dims"]
        self.types = types
        self.convolution = nn.Conv2d(channels, sizes["conv_features"], 3, padding=1)
        self.norm = nn.BatchNorm2d(sizes["conv_features"], eps=1e-3)
        self.cells = nn.ModuleList()
        below, capsules = sizes["conv_features"], []
        y, x = height, width
        for number, dim in enumerate(dims, start=1):
            cell = nn.ModuleDict()
            for name in CELL:
                seen = below if name == "enter" else types * dim
                if name == "shortcut" and number == len(dims):
                    cell[name] = group(conv=nn.Conv2d(dim, types * dim, 3, bias=False))
                else:
                    cell[name] = group(pose=nn.Conv2d(seen, types * dim, 3, bias=False))
            self.cells.append(cell)
            below, y, x = types * dim, (y + 1) // 2, (x + 1) // 2
            capsules.append(y * x * types)
        classes, class_dim = sizes["num_classes"], sizes["class_dim"]
        self.class_caps = group(kernel=zeros(sum(capsules[-2:]), classes, class_dim, dims[-1]))
        strides = sizes["decoder_strides"]
        scale = math.prod(strides)
        self.small = (sizes["decoder_channels"], -(-height // scale), -(-width // scale))
        filters = pairwise((self.small[0], *sizes["decoder_features"], channels))
        self.decoder = group(
            dense=nn.Linear(class_dim, math.prod(self.small)),
            norm=nn.BatchNorm2d(self.small[0], eps=1e-3),
            convolutions=nn.ModuleList(
                nn.ConvTranspose2d(a, b, 3, stride=stride)
                for (a, b), stride in zip(filters, (*strides, 1), strict=True)
            ),
        )

    def deviation(self, name: str) -> float | None:
        """Class capsules of a length around the margins."""
        return 0.3 if name == "class_caps.kernel" else None

    @torch.no_grad()
    def draw(self, generator: torch.Generator, *, biases: bool) -> None:
        """Draws weights, those of the cells three times as large as usual.

        Poses then keep their length; a short one is squared in each layer, and its error doubled.
        """
        super().draw(generator, biases=biases)
        for parameter in self.cells.parameters():
            parameter.mul_(3)

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        maps = self.convolution(images)
        x = batch_norm(torch.relu(maps), self.norm)
        stages = {"convolution": nhwc(maps), "norm": nhwc(x)}
        flat = []
        for number, cell in enumerate(self.cells):
            first = self.capsules(cell["enter"].pose, x, stride=2)
            middle = self.capsules(cell["middle"].pose, side_by_side(first))
            leave = self.capsules(cell["leave"].pose, side_by_side(middle))
            if number < len(self.cells) - 1:
                past, coupling = self.capsules(cell["shortcut"].pose, side_by_side(first)), None
            else:
                past, coupling = self.routed(cell["shortcut"].conv, first)
            stages |= capsule_stages(f"cells_{number}_enter", first)
            stages |= capsule_stages(f"cells_{number}_middle", middle)
            stages |= capsule_stages(f"cells_{number}_leave", leave)
            stages |= capsule_stages(f"cells_{number}_shortcut", past, coupling=coupling)
            out = leave + past
            flat.append(out.flatten(1, 3))
            x = side_by_side(out)
        u = torch.cat([flat[-1], flat[-2]], dim=1)
        votes = torch.einsum("ijdk,bik->bijd", self.class_caps.kernel, u)
        return with_decoder(stages, self.routing(votes, length(u), u), labels, self.decode)

    def capsules(self, convolution: nn.Conv2d, x: Tensor, stride: int = 1) -> Tensor:
        """Maps NCHW -> poses `[B, H, W, types, dim]`."""
        s = nhwc(functional.conv2d(padded(x, stride), convolution.weight, stride=stride))
        return squash(s.unflatten(3, (self.types, -1)))

    def routed(self, convolution: nn.Conv2d, below: Tensor) -> tuple[Tensor, Tensor]:
        """The 3D convolution of the paper, type by type along its first axis."""
        batch, height, width, types, dim = below.shape
        depth = below.permute(0, 3, 4, 1, 2).reshape(batch, 1, types * dim, height, width)
        votes = functional.conv3d(
            functional.pad(depth, (1, 1, 1, 1)),
            convolution.weight[:, None],
            stride=(dim, 1, 1),
        )  # [B, types * dim above, types below, H, W]
        votes = votes.permute(0, 2, 3, 4, 1).reshape(batch, types, height * width * types, dim)
        routed = self.routing(votes, below[..., 0].mean(dim=(1, 2)), below)
        above = (height, width, types)
        return routed["capsules"].unflatten(1, above), routed["coupling"].unflatten(2, above)

    def decode(self, masked: Tensor) -> Tensor:
        """Poses `[B, J, D]`, all but one of them zero -> images NHWC."""
        channels, height, width = self.small
        x = torch.relu(self.decoder.dense(masked.sum(dim=1)))
        x = x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        x = batch_norm(x, self.decoder.norm)
        for convolution in self.decoder.convolutions:
            stride = convolution.stride[0]
            start = max(3 - stride, 0) // 2
            height, width = stride * height, stride * width
            x = convolution(x)[:, :, start : start + height, start : start + width]
        height, width, _ = self.image_shape
        return torch.relu(x[:, :, :height, :width]).permute(0, 2, 3, 1)


def side_by_side(pose: Tensor) -> Tensor:
    """Poses `[B, H, W, types, dim]` -> maps NCHW."""
    return pose.flatten(3).permute(0, 3, 1, 2)


def padded(x: Tensor, stride: int) -> Tensor:
    """Zeros around maps, such that a 3x3 window fits once for every stride, more at the end."""
    sides = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
        sides += [total // 2, total - total // 2]
    return functional.pad(x, sides)
