"""Capsules that route by attention: Tsai et al. 2020, arXiv:2002.04764, Procedure 2."""

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, group, nhwc, zeros
from parity.reference.models._base import (
    ModelReference,
    NormalizedConv,
    ResidualBlock,
    capsule_stages,
)
from parity.reference.routing.inverted_attention import InvertedAttention
from parity.reference.windows import Windows, matrix_votes


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
    loss = "margin"
    routings: ClassVar = {"routing": "inverted-attention"}
    normalises_batch = True
    # Of batch normalisation, over the pixels.
    longest_sums = (9 * 11, 9 * 11)

    def __init__(self, iterations: int = 2, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        features = sizes["backbone_features"]
        stem, blocks = NormalizedConv(channels, features[0]), nn.ModuleList()
        self.backbone = group(stem=stem, blocks=blocks)
        below = features[0]
        for filters, number, stride in zip(
            features, sizes["backbone_blocks"], sizes["backbone_strides"], strict=True
        ):
            for index, (n_in, n_out) in enumerate(pairwise([below] + [filters] * number)):
                blocks.append(ResidualBlock(n_in, n_out, 1 if index else stride))
            height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
            below = filters
        types, dim = self.types, self.dim = sizes["primary_types"], sizes["pose_dim"]
        self.primary_caps = group(pose=nn.Conv2d(below, types * dim, 1, bias=False))
        self.primary_norm = nn.LayerNorm(dim, eps=1e-5)
        self.iterations = iterations
        grid = (height, width)
        self.windows = Windows.stack(grid, sizes["caps_kernels"], sizes["caps_strides"])
        self.conv_caps: Any = nn.ModuleList()
        for above, windows in zip(sizes["caps_types"], self.windows, strict=True):
            self.conv_caps.append(self.capsules(windows.size**2 * types, above, presence=False))
            types, grid = above, windows.counts
        seen = grid[0] * grid[1] * types
        self.class_caps = self.capsules(seen, sizes["num_classes"], presence=True)

    def capsules(self, n_in: int, n_out: int, presence: bool) -> Any:
        """A capsule layer with a matrix for each pair."""
        side, connected = math.isqrt(self.dim), Sizes(n_in, self.dim, n_out, self.dim)
        routing = InvertedAttention(connected, self.iterations, presence)
        return group(kernel=zeros(n_in, n_out, side, side), routing=routing)

    def deviation(self, name: str) -> float | None:
        """Votes of about the length of a pose."""
        return 0.3 if name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        x = torch.relu(self.backbone.stem(images))
        for block in self.backbone.blocks:
            x = block(x)
        pose = nhwc(self.primary_caps.pose(x)).unflatten(3, (self.types, self.dim))
        primary = self.primary_norm(pose)
        # What each layer has at the end of an iteration, the primary capsules first.
        poses: list[Tensor] = [primary]
        for index in range(len(self.conv_caps) + 1):
            now, coupling = self.iterate(index, poses[index], None)
            poses.append(now)
        for _ in range(1, self.iterations):
            before, poses = poses, [primary]
            for index in range(len(self.conv_caps) + 1):
                now, coupling = self.iterate(index, before[index], before[index + 1])
                poses.append(now)
        logits = self.class_caps.routing.logits(poses[-1])
        return {
            "backbone": nhwc(x),
            **capsule_stages("primary_caps", pose, torch.ones_like(pose[..., 0])),
            "primary_norm": primary,
            "capsules": poses[-1],
            "coupling": coupling,
            "lengths": torch.sigmoid(logits),
            "logits": logits,
        }

    def iterate(self, index: int, below: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """One iteration of a layer: its poses and coupling, of the poses below and its own."""
        if index == len(self.conv_caps):
            votes = matrix_votes(below.flatten(1, 3), self.class_caps.kernel)
            state = self.class_caps.routing.iterate(votes, before)
            return state["p"], state["r"]
        layer, windows = self.conv_caps[index], self.windows[index]
        votes = matrix_votes(windows.seen(below), layer.kernel)
        state = layer.routing.iterate(votes, None if before is None else before.flatten(0, 2))
        return state["p"].unflatten(0, (-1, *windows.counts)), state["r"]
