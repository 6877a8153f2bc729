"""Matrix capsules: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", section 4."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, group, nhwc, zeros
from parity.reference.models._base import ModelReference, capsule_stages, class_stages
from parity.reference.routing.em import EM
from parity.reference.windows import Windows, class_votes, matrix_votes


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
    loss = "spread"
    routings: ClassVar = {"routing": "em"}
    # The 4 x 5 x 4 capsules that a class sees, which are parents too; 6 x 7 positions of a filter.
    longest_sums = (80, 42)

    def __init__(self, iterations: int = 3, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        kernel, stride = sizes["conv_kernel"], sizes["conv_stride"]
        filters, types, dim = (sizes[n] for n in ("conv_features", "primary_types", "pose_dim"))
        side = math.isqrt(dim)
        self.types, self.dim = types, dim
        self.features = group(conv=nn.Conv2d(channels, filters, kernel, stride=stride))
        self.primary_caps = group(pose=nn.Conv2d(filters, types * (dim + 1), 1, bias=False))
        grid = ((height - kernel) // stride + 1, (width - kernel) // stride + 1)
        self.windows = Windows.stack(grid, sizes["caps_kernels"], sizes["caps_strides"])
        self.conv_caps: Any = nn.ModuleList()
        for above, windows in zip(sizes["caps_types"], self.windows, strict=True):
            seen = windows.size**2 * types
            routing = EM(Sizes(seen, dim, above, dim), iterations)
            self.conv_caps.append(group(kernel=zeros(seen, above, side, side), routing=routing))
            types, grid = above, windows.counts
        classes = sizes["num_classes"]
        connected = Sizes(grid[0] * grid[1] * types, dim, classes, dim)
        self.class_caps = group(
            kernel=zeros(types, classes, side, side),
            routing=EM(connected, iterations, inverse_temperature=0.0025, beta_u=2.0, beta_a=1.0),
        )

    def deviation(self, name: str) -> float | None:
        """Votes that differ, but not so much that a capsule has a few votes to itself.

        The exponents of such Gaussians are large, and so is what rounding does to assignments.
        """
        return 0.3 if name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        features = torch.relu(self.features.conv(images))
        maps = nhwc(self.primary_caps.pose(features))
        poses, logits = maps.split([self.types * self.dim, self.types], dim=3)
        M, a = poses.unflatten(3, (self.types, self.dim)), torch.sigmoid(logits - 1)
        stages = {"features": nhwc(features)} | capsule_stages("primary_caps", M, a)
        for index, (layer, windows) in enumerate(zip(self.conv_caps, self.windows, strict=True)):
            seen = windows.seen(M)
            votes = matrix_votes(seen, layer.kernel)
            routed = layer.routing(votes, windows.seen(a), seen, softmax=windows.over_all_parents)
            M, a, c = windows.on_grid(routed)
            stages |= capsule_stages(f"conv_caps_{index}", M, a, c)
        votes = class_votes(M, self.class_caps.kernel)
        routed = self.class_caps.routing(votes, a.flatten(1), M.flatten(1, 3))
        return stages | class_stages(routed)

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The spread loss, equation 3, with the margin of the end of training."""
        a = stages["lengths"]
        T = functional.one_hot(labels, a.shape[1]).to(a.dtype)
        of_target = (T * a).sum(dim=1, keepdim=True)
        return "spread", ((1 - T) * torch.relu(0.9 - (of_target - a)) ** 2).sum(dim=1)
