"""Ribeiro, Leontidis and Kollias 2020, arXiv:1905.11455: matrix capsules by variational Bayes."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, batch_norm, group, nhwc, zeros
from parity.reference.models._base import ModelReference, capsule_stages
from parity.reference.routing.variational_bayes import VariationalBayes
from parity.reference.windows import Windows, class_votes, matrix_votes


class VBCapsNet(ModelReference):
    """Batch normalisation of everything, and routing over all parents of a capsule."""

    parts = (
        *("features", "primary_caps", "primary_norm", "conv_caps.0", "conv_norms.0"),
        *("class_caps", "class_norm"),
    )
    tiny: ClassVar = {
        "image_shape": (7, 9, 2),
        "num_classes": 10,
        "conv_features": 6,
        "conv_kernel": 3,
        "conv_stride": 2,
        "primary_types": 7,
        "caps_types": (3,),
        "caps_kernels": (2,),
        "caps_strides": (1,),
        "pose_dim": 4,
    }
    loss = "cross_entropy"
    routings: ClassVar = {"routing": "variational-bayes"}
    normalises_batch = True
    shows_rounding = True
    # Statistics of a batch of seven are over all its positions, and the elements of a pose.
    longest_sums = (7 * 12 * 4, 12 * 4)

    def __init__(self, iterations: int = 3, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        kernel, stride = sizes["conv_kernel"], sizes["conv_stride"]
        filters, types, dim = (sizes[n] for n in ("conv_features", "primary_types", "pose_dim"))
        side = math.isqrt(dim)
        self.types, self.dim = types, dim
        self.features = group(
            conv=nn.Conv2d(channels, filters, kernel, stride=stride, bias=False),
            norm=nn.BatchNorm2d(filters),
        )
        self.primary_caps = group(pose=nn.Conv2d(filters, types * (dim + 1), 1, bias=False))
        self.primary_norm = group(pose=nn.BatchNorm2d(types), activation=nn.BatchNorm2d(types))
        grid = ((height - kernel) // stride + 1, (width - kernel) // stride + 1)
        self.windows = Windows.stack(grid, sizes["caps_kernels"], sizes["caps_strides"])
        self.conv_caps: Any = nn.ModuleList()
        self.conv_norms: Any = nn.ModuleList()
        for above, windows in zip(sizes["caps_types"], self.windows, strict=True):
            seen = windows.size**2 * types
            routing = VariationalBayes(Sizes(seen, dim, above, dim), iterations, logits=True)
            self.conv_caps.append(group(kernel=zeros(seen, above, side, side), routing=routing))
            self.conv_norms.append(plain_norms(above))
            types, grid = above, windows.counts
        classes = sizes["num_classes"]
        connected = Sizes(grid[0] * grid[1] * types, dim, classes, dim)
        self.class_caps = group(
            kernel=zeros(types, classes, side, side),
            routing=VariationalBayes(connected, iterations, logits=True),
        )
        self.class_norm = plain_norms(classes)

    def deviation(self, name: str) -> float | None:
        """Votes of a length, and activations from none to all, by which images differ.

        Classes differ by the small differences of an image from the rest of its batch.
        """
        if name == "primary_norm.activation.weight":
            return 6.0
        return 0.4 if name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        features = torch.relu(batch_norm(self.features.conv(images), self.features.norm))
        maps = nhwc(self.primary_caps.pose(features))
        poses, logits = maps.split([self.types * self.dim, self.types], dim=3)
        M = poses.unflatten(3, (self.types, self.dim))
        stages = {"features": nhwc(features)} | capsule_stages("primary_caps", M, logits)
        M, a = normalise(M, logits, self.primary_norm)
        stages |= capsule_stages("primary_norm", M, a)
        layers = zip(self.conv_caps, self.conv_norms, self.windows, strict=True)
        for index, (layer, norms, windows) in enumerate(layers):
            seen = windows.seen(M)
            votes = matrix_votes(seen, layer.kernel)
            routed = layer.routing(votes, windows.seen(a), seen, softmax=windows.over_all_parents)
            M, a, c = windows.on_grid(routed)
            stages |= capsule_stages(f"conv_caps_{index}", M, a, c)
            M, a = normalise(M, a, norms)
            stages |= capsule_stages(f"conv_norms_{index}", M, a)
        votes = class_votes(M, self.class_caps.kernel)
        routed = self.class_caps.routing(votes, a.flatten(1), M.flatten(1, 3))
        M, a, c = (routed[name] for name in ("capsules", "lengths", "coupling"))
        stages |= capsule_stages("class_caps", M, a, c)
        M, a = normalise(M, a, self.class_norm)
        stages |= capsule_stages("class_norm", M, a)
        return stages | {"capsules": M, "coupling": c, "lengths": a, "logits": a}

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """Cross entropy, with activations for logits."""
        lengths = stages["lengths"]
        return "cross_entropy", functional.cross_entropy(lengths, labels, reduction="none")


def plain_norms(types: int) -> nn.Module:
    """Normalisations of poses and activations without scales and biases."""
    pose, activation = (nn.BatchNorm2d(types, affine=False) for _ in range(2))
    return group(pose=pose, activation=activation)


def normalise(M: Tensor, logits: Tensor, norms: Any) -> tuple[Tensor, Tensor]:
    """Poses `[B, ..., types, D]`, each type over all its elements, and activations.

    Those are the sigmoids of the logits `[B, ..., types]`, normalised.
    """
    types = M.shape[-2]
    normal = batch_norm(M.movedim(-2, 1).reshape(len(M), types, -1, 1), norms.pose)
    a = batch_norm(logits.movedim(-1, 1).reshape(len(M), types, -1, 1), norms.activation)
    return (
        normal.reshape(len(M), types, *M.shape[1:-2], M.shape[-1]).movedim(1, -2),
        torch.sigmoid(a.reshape(len(M), types, *logits.shape[1:-1]).movedim(1, -1)),
    )
