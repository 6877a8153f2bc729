"""Ribeiro, Leontidis and Kollias 2020, arXiv:1905.11455: matrix capsules by variational Bayes."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsjax import Sizes, create_routing
from parity.reference._parts import Stages, batch_norm
from parity.reference.models._base import ModelReference
from parity.reference.routing.variational_bayes import VariationalBayes
from parity.reference.windows import Windows, centres
from train.config.fit_config import FitConfig
from train.learn.objective import Objective


class VBCapsNet(ModelReference):
    """Batch normalisation of everything, and routing over all parents of a capsule."""

    parts = (
        "features",
        "primary_caps",
        "primary_norm",
        "conv_caps.0",
        "conv_norms.0",
        "class_caps",
        "class_norm",
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
    objective = Objective.of(FitConfig.of(loss="cross_entropy"))
    normalises_batch = True
    shows_rounding = True
    # Statistics of a batch of seven are over all its positions, and the elements of a pose.
    longest_sums = (7 * 12 * 4, 12 * 4)

    def __init__(self, iterations: int = 3, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        kernel, stride = sizes["conv_kernel"], sizes["conv_stride"]
        filters, self.types = sizes["conv_features"], sizes["primary_types"]
        self.dim, self.side = sizes["pose_dim"], math.isqrt(sizes["pose_dim"])
        self.features = nn.Module()
        self.features.conv = nn.Conv2d(channels, filters, kernel, stride=stride, bias=False)
        self.features.norm = nn.BatchNorm2d(filters)
        self.primary_caps = nn.Module()
        self.primary_caps.pose = nn.Conv2d(filters, self.types * (self.dim + 1), 1, bias=False)
        self.primary_norm: Any = nn.Module()
        self.primary_norm.pose = nn.BatchNorm2d(self.types)
        self.primary_norm.activation = nn.BatchNorm2d(self.types)
        grid = ((height - kernel) // stride + 1, (width - kernel) // stride + 1)
        self.conv_caps, self.windows = nn.ModuleList(), []
        below = self.types
        for types, size, step in zip(
            sizes["caps_types"], sizes["caps_kernels"], sizes["caps_strides"], strict=True
        ):
            windows, seen = Windows(grid, size, step), size * size * below
            layer = nn.Module()
            layer.kernel = nn.Parameter(torch.zeros(seen, types, self.side, self.side))
            routed = Sizes(seen, self.dim, types, self.dim)
            layer.routing = VariationalBayes(routed, iterations, logits=True)
            self.conv_caps.append(layer)
            self.windows.append(windows)
            below, grid = types, windows.counts
        self.grid = grid
        classes = sizes["num_classes"]
        self.class_caps: Any = nn.Module()
        self.class_caps.kernel = nn.Parameter(torch.zeros(below, classes, self.side, self.side))
        routed = Sizes(grid[0] * grid[1] * below, self.dim, classes, self.dim)
        self.class_caps.routing = VariationalBayes(routed, iterations, logits=True)

    @classmethod
    def with_iterations(cls, iterations: int) -> dict[str, Any]:
        """See `ModelReference`."""
        return {"iterations": iterations}

    @classmethod
    def capsjax_options(cls, iterations: int) -> dict[str, Any]:
        """See `ModelReference`."""
        return {"routing": create_routing("variational-bayes", iterations=iterations)}

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Votes of a length, and activations from none to all, by which images differ.

        Classes are told apart by the small differences of an image from the rest of its batch.
        """
        if name == "primary_norm.activation.weight":
            return 6.0
        return 0.4 if name.endswith("kernel") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        features = torch.relu(batch_norm(self.features.conv(images), self.features.norm))
        maps = self.primary_caps.pose(features).permute(0, 2, 3, 1)
        poses, logits = maps.split([self.types * self.dim, self.types], dim=3)
        M = poses.unflatten(3, (self.types, self.dim))
        stages = {
            "features": features.permute(0, 2, 3, 1),
            "primary_caps_pose": M,
            "primary_caps_activation": logits,
        }
        M, a = normalise(M, logits, self.primary_norm.pose, self.primary_norm.activation)
        stages |= {"primary_norm_pose": M, "primary_norm_activation": a}
        for index, (layer, windows) in enumerate(zip(self.conv_caps, self.windows, strict=True)):
            routed = layer.routing(
                self.votes(windows.seen(M), layer.kernel),
                windows.seen(a),
                windows.seen(M),
                softmax=windows.over_all_parents(len(images)),
            )
            M, a, c = (
                routed[name].unflatten(0, (len(images), *windows.counts))
                for name in ("capsules", "lengths", "coupling")
            )
            part = f"conv_caps_{index}"
            stages |= {f"{part}_pose": M, f"{part}_activation": a, f"{part}_coupling": c}
            M, a = normalise(M, a)
            stages |= {f"conv_norms_{index}_pose": M, f"conv_norms_{index}_activation": a}
        positions = centres(*self.grid, self.dim, M.dtype)[:, :, None, None]
        V = self.votes(M, self.class_caps.kernel) + positions
        routed = self.class_caps.routing(V.flatten(1, 3), a.flatten(1), M.flatten(1, 3))
        capsules, lengths = normalise(routed["capsules"], routed["lengths"])
        return stages | {
            "class_caps_pose": routed["capsules"],
            "class_caps_activation": routed["lengths"],
            "class_caps_coupling": routed["coupling"],
            "class_norm_pose": capsules,
            "class_norm_activation": lengths,
            "capsules": capsules,
            "coupling": routed["coupling"],
            "lengths": lengths,
            "logits": lengths,
        }

    def votes(self, M: Tensor, kernel: Any) -> Tensor:
        """Poses `[..., I, D]` times matrices `[I, J, side, side]` -> `[..., I, J, D]`."""
        return (M.unflatten(-1, (1, self.side, self.side)) @ kernel).flatten(-2)

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """Cross entropy, with activations for logits."""
        lengths = stages["lengths"]
        return "cross_entropy", functional.cross_entropy(lengths, labels, reduction="none")


def normalise(
    M: Tensor,
    logits: Tensor,
    of_pose: nn.BatchNorm2d | None = None,
    of_activation: nn.BatchNorm2d | None = None,
) -> tuple[Tensor, Tensor]:
    """Poses `[B, ..., types, D]`, each type over all its elements, and activations.

    Args:
      M: the poses.
      logits: what the activations `[B, ..., types]` are the sigmoids of, when normalised.
      of_pose: scale and bias of the poses; None for none.
      of_activation: the same of the logits.
    """
    types = M.shape[-2]
    plain = nn.BatchNorm2d(types, affine=False)
    normal = batch_norm(M.movedim(-2, 1).reshape(len(M), types, -1, 1), of_pose or plain)
    a = batch_norm(logits.movedim(-1, 1).reshape(len(M), types, -1, 1), of_activation or plain)
    return (
        normal.reshape(len(M), types, *M.shape[1:-2], M.shape[-1]).movedim(1, -2),
        torch.sigmoid(a.reshape(len(M), types, *logits.shape[1:-1]).movedim(1, -1)),
    )
