"""The network of Hahn, Pyeon and Kim 2019: self-routing capsules on a residual network."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsjax import Sizes
from parity.reference._parts import Stages, batch_norm
from parity.reference.models._base import ModelReference, class_stages
from parity.reference.routing.self_routing import SelfRouting
from parity.reference.windows import Windows
from train.config.fit_config import FitConfig
from train.learn.objective import Objective


class NormalizedConv(nn.Module):
    """A 3x3 convolution of padded maps, and batch normalisation."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, maps: Tensor) -> Tensor:
        """The rectifier is the caller's."""
        return batch_norm(self.conv(maps), self.norm)


class ResidualBlock(nn.Module):
    """Two of them beside a shortcut, which is filled up with zeros on both sides."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = n_out - n_in
        self.first = NormalizedConv(n_in, n_out, stride)
        self.second = NormalizedConv(n_out, n_out)

    def forward(self, maps: Tensor) -> Tensor:
        """Rectified after the sum."""
        shortcut = maps[:, :, :: self.stride, :: self.stride]
        before = self.added // 2
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, before, self.added - before))
        return torch.relu(shortcut + self.second(torch.relu(self.first(maps))))


class SRCapsNet(ModelReference):
    """A small ResNet, primary capsules, a layer of convolutional ones, and the classes."""

    parts = (
        "features.stem",
        "features.blocks.0",
        "features.blocks.1",
        "features.blocks.2",
        "primary_caps",
        "primary_norm",
        "conv_caps.0",
        "conv_norms.0",
        "class_caps",
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
    objective = Objective.of(FitConfig.of(loss="cross_entropy"))
    normalises_batch = True
    # Statistics of a batch of seven are over all its positions.
    longest_sums = (7 * 176, 176)

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        self.sizes = sizes
        height, width, channels = sizes["image_shape"]
        filters, blocks = sizes["width"], sizes["blocks"]
        self.features: Any = nn.Module()
        self.features.stem = NormalizedConv(channels, filters)
        self.features.blocks = nn.ModuleList()
        below = filters
        for factor in (1, 2, 4):
            for index in range(blocks):
                stride = 2 if factor > 1 and index == 0 else 1
                self.features.blocks.append(ResidualBlock(below, factor * filters, stride))
                below = factor * filters
        types, dim = sizes["caps_types"], sizes["caps_dim"]
        self.primary_caps = nn.Module()
        self.primary_caps.pose = nn.Conv2d(below, types * (dim + 1), 3, padding=1, bias=False)
        self.primary_norm = nn.Module()
        self.primary_norm.pose = nn.BatchNorm2d(types * dim)
        self.primary_norm.activation = nn.BatchNorm2d(types)
        height, width = -(-height // 4), -(-width // 4)
        self.conv_caps, self.conv_norms = nn.ModuleList(), nn.ModuleList()
        for index in range(sizes["conv_caps"]):
            layer, norm = nn.Module(), nn.Module()
            layer.kernel = nn.Parameter(torch.zeros(9 * types, types, dim, dim))
            layer.routing = SelfRouting(Sizes(9 * types, dim, types, dim))
            norm.pose = nn.BatchNorm2d(types * dim)
            self.conv_caps.append(layer)
            self.conv_norms.append(norm)
            if index == 0:
                height, width = -(-height // 2), -(-width // 2)
        self.class_caps = nn.Module()
        self.class_caps.routing = SelfRouting(
            Sizes(height * width * types, dim, sizes["num_classes"], dim)
        )

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Votes as long as poses, and routing networks that have something to say."""
        if "routing.kernel" in name:
            return 0.3
        return 0.5 if name.startswith("conv_caps") and name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        stages: Stages = {}
        maps = self.features.stem(images)
        stages["features_stem"] = maps.permute(0, 2, 3, 1)
        maps = torch.relu(maps)
        for index, block in enumerate(self.features.blocks):
            maps = block(maps)
            stages[f"features_blocks_{index}"] = maps.permute(0, 2, 3, 1)
        types, dim = self.sizes["caps_types"], self.sizes["caps_dim"]
        raw = self.primary_caps.pose(maps)
        logits = raw[:, types * dim :]
        stages["primary_caps_pose"] = on_grid(raw[:, : types * dim], types)
        stages["primary_caps_activation"] = logits.permute(0, 2, 3, 1)
        u = on_grid(batch_norm(raw[:, : types * dim], self.primary_norm.pose), types)
        a = torch.sigmoid(batch_norm(logits, self.primary_norm.activation)).permute(0, 2, 3, 1)
        stages |= {"primary_norm_pose": u, "primary_norm_activation": a}
        for index, (layer, norm) in enumerate(zip(self.conv_caps, self.conv_norms, strict=True)):
            padded_u = functional.pad(u, (0, 0, 0, 0, 1, 1, 1, 1))
            padded_a = functional.pad(a, (0, 0, 1, 1, 1, 1))
            height, width = padded_a.shape[1:3]
            windows = Windows((height, width), 3, 2 if index == 0 else 1)
            seen_u, seen_a = windows.seen(padded_u), windows.seen(padded_a)
            votes = torch.einsum("ijdk,bik->bijd", layer.kernel, seen_u)
            routed = layer.routing(votes, seen_a, seen_u)
            u, a, c = (
                routed[name].unflatten(0, (len(images), *windows.counts))
                for name in ("capsules", "lengths", "coupling")
            )
            part = f"conv_caps_{index}"
            stages |= {f"{part}_pose": u, f"{part}_activation": a, f"{part}_coupling": c}
            u = on_grid(batch_norm(u.flatten(3).permute(0, 3, 1, 2), norm.pose), types)
            stages |= {f"conv_norms_{index}_pose": u, f"conv_norms_{index}_activation": a}
        u, a = u.flatten(1, 3), a.flatten(1)
        classes = self.sizes["num_classes"]
        routed = self.class_caps.routing(u[:, :, None].expand(-1, -1, classes, -1), a, u)
        return stages | {
            **class_stages(routed),
        }

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The negative logarithm of the label's activation, which is a probability."""
        return "cross_entropy", functional.nll_loss(
            torch.log(stages["lengths"]), labels, reduction="none"
        )


def on_grid(maps: Tensor, types: int) -> Tensor:
    """Poses `[B, types * dim, H, W]` -> `[B, H, W, types, dim]`."""
    return maps.unflatten(1, (types, -1)).permute(0, 3, 4, 1, 2)
