"""Matrix capsules: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", section 4."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsjax import Sizes, create_routing
from parity.reference._parts import Stages
from parity.reference.models._base import ModelReference, class_stages
from parity.reference.routing.em import EM
from parity.reference.windows import Windows, centres
from train.config.fit_config import FitConfig
from train.learn.objective import Objective


class MatrixCapsNet(ModelReference):
    """Poses are matrices all the way; EM routing over all parents; positions added at the top."""

    # One capsule layer, with more votes than parents: images of 1e4 make Gaussians that have no
    # smallest variance to speak of, and in a second layer assignments would have lost two digits.
    parts = ("features", "primary_caps", "conv_caps.0", "class_caps")
    tiny: ClassVar = {
        "image_shape": (13, 15, 2),
        "num_classes": 10,
        "conv_features": 5,
        "conv_kernel": 3,
        "conv_stride": 2,
        "primary_types": 6,
        "caps_types": (4,),
        "caps_kernels": (3,),
        "caps_strides": (1,),
        "pose_dim": 4,
    }
    objective = Objective.of(FitConfig.of(loss="spread"))
    # The 4 x 5 x 4 capsules that a class sees, which are parents too; 6 x 7 positions of a filter.
    longest_sums = (80, 42)

    def __init__(self, iterations: int = 3, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        kernel, stride = sizes["conv_kernel"], sizes["conv_stride"]
        filters, self.types = sizes["conv_features"], sizes["primary_types"]
        self.dim, self.side = sizes["pose_dim"], math.isqrt(sizes["pose_dim"])
        self.features = nn.Module()
        self.features.conv = nn.Conv2d(channels, filters, kernel, stride=stride)
        self.primary_caps = nn.Module()
        self.primary_caps.pose = nn.Conv2d(filters, self.types * (self.dim + 1), 1, bias=False)
        grid = ((height - kernel) // stride + 1, (width - kernel) // stride + 1)
        self.conv_caps = nn.ModuleList()
        self.windows = []
        below = self.types
        for types, size, step in zip(
            sizes["caps_types"], sizes["caps_kernels"], sizes["caps_strides"], strict=True
        ):
            windows = Windows(grid, size, step)
            layer = nn.Module()
            layer.kernel = nn.Parameter(
                torch.zeros(size * size * below, types, self.side, self.side)
            )
            layer.routing = EM(Sizes(size * size * below, self.dim, types, self.dim), iterations)
            self.conv_caps.append(layer)
            self.windows.append(windows)
            below, grid = types, windows.counts
        self.grid = grid
        classes = sizes["num_classes"]
        self.class_caps = nn.Module()
        self.class_caps.kernel = nn.Parameter(torch.zeros(below, classes, self.side, self.side))
        self.class_caps.routing = EM(
            Sizes(grid[0] * grid[1] * below, self.dim, classes, self.dim),
            iterations,
            0.0025,
            2.0,
            1.0,
        )

    @classmethod
    def with_iterations(cls, iterations: int) -> dict[str, Any]:
        """See `ModelReference`."""
        return {"iterations": iterations}

    @classmethod
    def capsjax_options(cls, iterations: int) -> dict[str, Any]:
        """See `ModelReference`."""
        return {"routing": create_routing("em", iterations=iterations)}

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Votes that differ, but not so much that a capsule has a few votes to itself.

        The exponents of such Gaussians are large, and so is what rounding does to assignments.
        """
        return 0.3 if name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        features = torch.relu(self.features.conv(images))
        maps = self.primary_caps.pose(features).permute(0, 2, 3, 1)
        poses, logits = maps.split([self.types * self.dim, self.types], dim=3)
        pose = poses.unflatten(3, (self.types, self.dim))
        activation = torch.sigmoid(logits - 1)
        stages = {
            "features": features.permute(0, 2, 3, 1),
            "primary_caps_pose": pose,
            "primary_caps_activation": activation,
        }
        for index, (layer, windows) in enumerate(zip(self.conv_caps, self.windows, strict=True)):
            routed = self.convolve(layer, windows, pose, activation)
            pose, activation = routed["pose"], routed["activation"]
            stages |= {f"conv_caps_{index}_{name}": value for name, value in routed.items()}
        batch = len(images)
        routed = self.class_caps.routing(
            self.class_votes(pose), activation.reshape(batch, -1), pose.reshape(batch, -1, self.dim)
        )
        stages |= {
            **class_stages(routed),
        }
        return stages

    def convolve(
        self, layer: nn.Module, windows: Windows, pose: Tensor, activation: Tensor
    ) -> Stages:
        """A convolutional capsule layer: its capsules on their grid, and their coupling."""
        batch = len(pose)
        M = windows.seen(pose).unflatten(
            2, (1, self.side, self.side)
        )  # [windows, I, 1, side, side]
        votes = (M @ layer.kernel).flatten(3)
        routed = layer.routing(
            votes,
            windows.seen(activation),
            windows.seen(pose),
            softmax=windows.over_all_parents(batch),
        )
        names = {"capsules": "pose", "lengths": "activation", "coupling": "coupling"}
        return {
            ours: routed[theirs].unflatten(0, (batch, *windows.counts))
            for theirs, ours in names.items()
        }

    def class_votes(self, pose: Tensor) -> Tensor:
        """`[B, P, Q, types, D]` -> `[B, I, classes, D]`, the position in the last column."""
        M = pose.unflatten(4, (1, self.side, self.side))
        V = M @ self.class_caps.kernel  # [B, P, Q, types, classes, side, side]
        positions = centres(*self.grid, self.dim, V.dtype)[:, :, None, None]
        return (V.flatten(5) + positions).flatten(1, 3)

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The spread loss, equation 3, with the margin of the end of training."""
        a = stages["lengths"]
        T = functional.one_hot(labels, a.shape[1]).to(a.dtype)
        of_target = (T * a).sum(dim=1, keepdim=True)
        return "spread", ((1 - T) * torch.relu(0.9 - (of_target - a)) ** 2).sum(dim=1)
