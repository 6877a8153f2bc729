"""The network of Hahn, Pyeon and Kim 2019: self-routing capsules on a residual network."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, batch_norm, group, nhwc, zeros
from parity.reference.models._base import (
    ModelReference,
    NormalizedConv,
    ResidualBlock,
    capsule_stages,
    class_stages,
)
from parity.reference.routing.self_routing import SelfRouting
from parity.reference.windows import Windows


class SRCapsNet(ModelReference):
    """A small ResNet, primary capsules, a layer of convolutional ones, and the classes."""

    parts = (
        *("features.stem", "features.blocks.0", "features.blocks.1", "features.blocks.2"),
        *("primary_caps", "primary_norm", "conv_caps.0", "conv_norms.0", "class_caps"),
    )
    tiny: ClassVar = {
        "image_shape": (16, 11, 2),
        "num_classes": 10,
        "width": 3,
        "blocks": 1,
        "caps_types": 2,
        "caps_dim": 5,
        "conv_caps": 1,
    }
    loss = "cross_entropy"
    normalises_batch = True
    # Statistics of a batch of seven are over all its positions.
    longest_sums = (7 * 176, 176)

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        filters, self.classes = sizes["width"], sizes["num_classes"]
        blocks, below = nn.ModuleList(), filters
        self.features = group(stem=NormalizedConv(channels, filters), blocks=blocks)
        for factor in (1, 2, 4):
            for index in range(sizes["blocks"]):
                stride = 2 if factor > 1 and index == 0 else 1
                blocks.append(ResidualBlock(below, factor * filters, stride, zeros=True))
                below = factor * filters
        types, dim = self.types, self.dim = sizes["caps_types"], sizes["caps_dim"]
        self.primary_caps = group(
            pose=nn.Conv2d(below, types * (dim + 1), 3, padding=1, bias=False)
        )
        self.primary_norm = group(
            pose=nn.BatchNorm2d(types * dim), activation=nn.BatchNorm2d(types)
        )
        height, width = -(-height // 4), -(-width // 4)
        self.conv_caps, self.conv_norms = nn.ModuleList(), nn.ModuleList()
        for index in range(sizes["conv_caps"]):
            routing = SelfRouting(Sizes(9 * types, dim, types, dim))
            self.conv_caps.append(group(kernel=zeros(9 * types, types, dim, dim), routing=routing))
            self.conv_norms.append(group(pose=nn.BatchNorm2d(types * dim)))
            if index == 0:
                height, width = -(-height // 2), -(-width // 2)
        connected = Sizes(height * width * types, dim, self.classes, dim)
        self.class_caps = group(routing=SelfRouting(connected))

    def deviation(self, name: str) -> float | None:
        """Votes as long as poses, and routing networks that have something to say."""
        if "routing.kernel" in name:
            return 0.3
        return 0.5 if name.startswith("conv_caps") and name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        maps = self.features.stem(images)
        stages = {"features_stem": nhwc(maps)}
        maps = torch.relu(maps)
        for index, block in enumerate(self.features.blocks):
            maps = block(maps)
            stages[f"features_blocks_{index}"] = nhwc(maps)
        M, logits = self.primary_caps.pose(maps).split([self.types * self.dim, self.types], dim=1)
        stages |= capsule_stages("primary_caps", self.on_grid(M), nhwc(logits))
        u = self.on_grid(batch_norm(M, self.primary_norm.pose))
        a = nhwc(torch.sigmoid(batch_norm(logits, self.primary_norm.activation)))
        stages |= capsule_stages("primary_norm", u, a)
        for index, (layer, norm) in enumerate(zip(self.conv_caps, self.conv_norms, strict=True)):
            padded_u = functional.pad(u, (0, 0, 0, 0, 1, 1, 1, 1))
            padded_a = functional.pad(a, (0, 0, 1, 1, 1, 1))
            height, width = padded_a.shape[1:3]
            windows = Windows((height, width), 3, 2 if index == 0 else 1)
            seen = windows.seen(padded_u)
            votes = torch.einsum("ijdk,bik->bijd", layer.kernel, seen)
            u, a, c = windows.on_grid(layer.routing(votes, windows.seen(padded_a), seen))
            stages |= capsule_stages(f"conv_caps_{index}", u, a, c)
            u = self.on_grid(batch_norm(u.flatten(3).permute(0, 3, 1, 2), norm.pose))
            stages |= capsule_stages(f"conv_norms_{index}", u, a)
        u, a = u.flatten(1, 3), a.flatten(1)
        votes = u[:, :, None].expand(-1, -1, self.classes, -1)
        return stages | class_stages(self.class_caps.routing(votes, a, u))

    def on_grid(self, maps: Tensor) -> Tensor:
        """Poses `[B, types * dim, H, W]` -> `[B, H, W, types, dim]`."""
        return maps.unflatten(1, (self.types, -1)).permute(0, 3, 4, 1, 2)

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The negative logarithm of the label's activation, which is a probability."""
        log_p = torch.log(stages["lengths"])
        return "cross_entropy", functional.nll_loss(log_p, labels, reduction="none")
