"""Capsules that route by attention: Tsai et al. 2020, arXiv:2002.04764, Procedure 2."""

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from capsjax import Sizes, create_routing
from parity.reference._parts import Stages, batch_norm
from parity.reference.models._base import ModelReference
from parity.reference.routing.inverted_attention import InvertedAttention
from parity.reference.windows import Windows
from train.config.fit_config import FitConfig
from train.learn.objective import Objective


class AttentionCapsNet(ModelReference):
    """A residual network below capsule layers that take their iterations at the same time."""

    parts = ("backbone", "primary_caps", "primary_norm")
    # With fewer features there are positions where none is on: a pose of almost nothing, whose
    # rounding layer normalisation would enlarge.
    tiny: ClassVar = {
        "image_shape": (9, 11, 2),
        "num_classes": 10,
        "backbone_features": (4, 20),
        "backbone_blocks": (1, 1),
        "backbone_strides": (1, 2),
        "primary_types": 3,
        "caps_types": (7, 5),
        "caps_kernels": (3, 2),
        "caps_strides": (1, 1),
        "pose_dim": 16,
    }
    # Not the published cross entropy, under which a bias that all classes share has a gradient of
    # zero and rounding errors; that loss is proven with the CNN.
    objective = Objective.of(FitConfig.of(loss="margin"))
    normalises_batch = True
    # Of batch normalisation, over the pixels.
    longest_sums = (9 * 11, 9 * 11)

    def __init__(self, iterations: int = 2, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        features = sizes["backbone_features"]
        self.backbone = nn.Module()
        self.backbone.stem = normalised(channels, features[0], 3, 1)
        self.backbone.blocks = nn.ModuleList()
        below = features[0]
        for filters, blocks, stride in zip(
            features, sizes["backbone_blocks"], sizes["backbone_strides"], strict=True
        ):
            for index, (n_in, n_out) in enumerate(pairwise([below] + [filters] * blocks)):
                self.backbone.blocks.append(block(n_in, n_out, 1 if index else stride))
            height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
            below = filters
        self.types, self.dim = sizes["primary_types"], sizes["pose_dim"]
        self.primary_caps = nn.Module()
        self.primary_caps.pose = nn.Conv2d(below, self.types * self.dim, 1, bias=False)
        self.primary_norm = nn.LayerNorm(self.dim, eps=1e-5)
        self.iterations = iterations
        side, grid, below = math.isqrt(self.dim), (height, width), self.types
        self.conv_caps, self.windows = nn.ModuleList(), []
        for types, size, stride in zip(
            sizes["caps_types"], sizes["caps_kernels"], sizes["caps_strides"], strict=True
        ):
            windows = Windows(grid, size, stride)
            self.conv_caps.append(self.capsules(size * size * below, types, side, False))
            self.windows.append(windows)
            below, grid = types, windows.counts
        self.class_caps = self.capsules(grid[0] * grid[1] * below, sizes["num_classes"], side, True)

    def capsules(self, n_in: int, n_out: int, side: int, presence: bool) -> nn.Module:
        """A capsule layer with a matrix for each pair."""
        layer = nn.Module()
        layer.kernel = nn.Parameter(torch.zeros(n_in, n_out, side, side))
        layer.routing = InvertedAttention(
            Sizes(n_in, self.dim, n_out, self.dim), self.iterations, presence
        )
        return layer

    @classmethod
    def with_iterations(cls, iterations: int) -> dict[str, Any]:
        """See `ModelReference`."""
        return {"iterations": iterations}

    @classmethod
    def capsjax_options(cls, iterations: int) -> dict[str, Any]:
        """See `ModelReference`."""
        return {"routing": create_routing("inverted-attention", iterations=iterations)}

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Votes of about the length of a pose."""
        return 0.3 if name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        x = torch.relu(convolved(self.backbone.stem, images))
        for each in self.backbone.blocks:
            way = convolved(each.second, torch.relu(convolved(each.first, x)))
            around = convolved(each.around, x) if hasattr(each, "around") else x
            x = torch.relu(way + around)
        maps = self.primary_caps.pose(x).permute(0, 2, 3, 1)
        pose = maps.unflatten(3, (self.types, self.dim))
        primary = self.primary_norm(pose)
        # What each layer has at the end of an iteration, the primary capsules first.
        poses: list[Tensor] = [primary]
        for index in range(len(self.conv_caps) + 1):
            poses.append(self.iterate(index, poses[index], None)[0])
        coupling = None
        for _ in range(1, self.iterations):
            before = poses
            poses = [primary]
            for index in range(len(self.conv_caps) + 1):
                now, coupling = self.iterate(index, before[index], before[index + 1])
                poses.append(now)
        if coupling is None:
            coupling = self.iterate(len(self.conv_caps), poses[-2], None)[1]
        logits = self.class_caps.routing.logits(poses[-1])
        return {
            "backbone": x.permute(0, 2, 3, 1),
            "primary_caps_pose": pose,
            "primary_caps_activation": torch.ones_like(pose[..., 0]),
            "primary_norm": primary,
            "capsules": poses[-1],
            "coupling": coupling,
            "lengths": torch.sigmoid(logits),
            "logits": logits,
        }

    def iterate(self, index: int, below: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """One iteration of a layer: its poses and coupling, of the poses below and its own."""
        side, batch = math.isqrt(self.dim), len(below)
        is_class = index == len(self.conv_caps)
        layer = self.class_caps if is_class else self.conv_caps[index]
        seen = below.flatten(1, 3) if is_class else self.windows[index].seen(below)
        votes = (seen.unflatten(2, (1, side, side)) @ layer.kernel).flatten(3)
        if is_class:
            state = layer.routing.step(votes, before)
            return state["p"], state["r"]
        state = layer.routing.step(votes, None if before is None else before.flatten(0, 2))
        counts = self.windows[index].counts
        return state["p"].unflatten(0, (batch, *counts)), state["r"]


def normalised(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Module:
    """A convolution without biases and its batch normalisation."""
    module = nn.Module()
    module.conv = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    module.norm = nn.BatchNorm2d(n_out, eps=1e-5)
    return module


def block(n_in: int, n_out: int, stride: int) -> nn.Module:
    """A residual block."""
    module = nn.Module()
    module.first = normalised(n_in, n_out, 3, stride)
    module.second = normalised(n_out, n_out, 3, 1)
    if stride != 1 or n_in != n_out:
        module.around = normalised(n_in, n_out, 1, stride)
    return module


def convolved(module: Any, x: Tensor) -> Tensor:
    """What a normalised convolution makes of NCHW maps."""
    return batch_norm(module.conv(x), module.norm)
