"""The matrix capsules of yl-1993/Matrix-Capsules-EM-PyTorch, as that project computes them."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Stages, batch_norm, group
from parity.reference.models._base import ModelReference, class_stages
from parity.reference.windows import Windows
from train.config.fit_config import FitConfig
from train.learn.objective import Objective

EPSILON = 1e-8
INVERSE_TEMPERATURE = 1e-3
MEAN, DEVIATION = 0.1307, 0.3081


class Yl1993(ModelReference):
    """Matrix capsules with EM, by the paper's formulas and without the authors' schedules.

    - Convolution with a padding of 2, batch normalisation (1e-3 is added to a variance), rectifier.
    - Primary capsules: two 1x1 convolutions with biases, one to poses, one to activations, whose
      sigmoid is taken of them as they are.
    - EM: votes are `pose @ W`. Assignments start equal; times the activations they are normalised
      over the parents in a window. 1e-8 is added to each sum that is divided by, and to variances.
      The inverse temperature is 0.001 in every iteration, of which the public training has two.
    - Class capsules: all positions share their matrices, and the row and the column of a position,
      counted from 0 and divided by the side, are added to the first two numbers of a vote.
    - Loss: the spread loss, with the margin of the end of training.

    State dict: `conv1`, `bn1`, `primary_caps.pose`, `primary_caps.a`, and of `conv_caps1`,
    `conv_caps2` and `class_caps` each `weights` `[1, K K B, C, P, P]`, `beta_u` and `beta_a` `[C]`.

    The sizes are those of `capsjax.MatrixCapsNet`, by default those of the public class. Its
    strides are fixed. It is compared with two iterations: a third one doubles the digits that
    rounding takes from assignments.
    """

    parts = ("features", "primary_caps", "conv_caps.0", "conv_caps.1", "class_caps")
    tiny: ClassVar = {
        "image_shape": (17, 21, 2),
        "num_classes": 10,
        "conv_features": 5,
        "conv_kernel": 5,
        "primary_types": 8,
        "caps_types": (3, 4),
        "caps_kernels": (3, 2),
        "pose_dim": 4,
    }
    objective = Objective.of(FitConfig.of(loss="spread", input_mean=MEAN, input_std=DEVIATION))
    published_iterations = 2
    normalises_batch = True
    idle = ("features.conv.bias",)
    # The 3 x 3 x 8 capsules that a window holds; 9 x 11 positions of a filter.
    longest_sums = (72, 99)

    strides = (2, 1)

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        num_classes: int = 10,
        *,
        conv_features: int = 32,
        conv_kernel: int = 5,
        primary_types: int = 32,
        caps_types: tuple[int, int] = (32, 32),
        caps_kernels: tuple[int, int] = (3, 3),
        pose_dim: int = 16,
        iterations: int = 2,
    ) -> None:
        super().__init__()
        height, width, channels = image_shape
        self.types, self.dim, self.side = primary_types, pose_dim, math.isqrt(pose_dim)
        self.iterations = iterations
        self.conv1 = nn.Conv2d(channels, conv_features, conv_kernel, stride=2, padding=2)
        self.bn1 = nn.BatchNorm2d(conv_features, eps=1e-3)
        self.primary_caps = group(
            pose=nn.Conv2d(conv_features, primary_types * pose_dim, 1),
            a=nn.Conv2d(conv_features, primary_types, 1),
        )
        grid = ((height + 4 - conv_kernel) // 2 + 1, (width + 4 - conv_kernel) // 2 + 1)
        self.windows = []
        below = primary_types
        for number, (types, size, stride) in enumerate(
            zip(caps_types, caps_kernels, self.strides, strict=True), start=1
        ):
            self.add_module(f"conv_caps{number}", self._matrices(size * size * below, types))
            self.windows.append(Windows(grid, size, stride))
            below, grid = types, self.windows[-1].counts
        self.class_caps = self._matrices(below, num_classes)

    def _matrices(self, below: int, above: int) -> nn.Module:
        return group(
            weights=nn.Parameter(torch.randn(1, below, above, self.side, self.side)),
            beta_u=nn.Parameter(torch.zeros(above)),
            beta_a=nn.Parameter(torch.zeros(above)),
        )

    @classmethod
    def with_iterations(cls, iterations: int) -> dict[str, Any]:
        """See `ModelReference`."""
        return {"iterations": iterations}

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Matrices that turn a pose into votes of about its size."""
        return 0.6 if name.endswith("weights") else None

    @torch.no_grad()
    def draw(self, generator: torch.Generator, *, biases: bool) -> None:
        """See `ModelReference`; so that exponents stay small, and what rounding does to them.

        Features are there almost everywhere, so that no vote is far from all others; and votes for
        convolutional capsules are not far from poses, so that a mean is no small difference.
        """
        super().draw(generator, biases=biases)
        self.bn1.bias.add_(2)
        for layer in (self.conv_caps1, self.conv_caps2):
            layer.weights.add_(torch.eye(self.side))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Runs the network, see `ModelReference`; labels make no difference."""
        features = torch.relu(batch_norm(self.conv1(images), self.bn1))
        poses = self.primary_caps.pose(features).permute(0, 2, 3, 1)
        pose = poses.unflatten(3, (self.types, self.dim))
        activation = torch.sigmoid(self.primary_caps.a(features)).permute(0, 2, 3, 1)
        stages = {
            "features": features.permute(0, 2, 3, 1),
            "primary_caps_pose": pose,
            "primary_caps_activation": activation,
        }
        batch = len(images)
        for index, windows in enumerate(self.windows):
            layer = getattr(self, f"conv_caps{index + 1}")
            votes = self.votes(windows.seen(pose), layer.weights)
            routed = self.route(votes, windows.seen(activation), layer)
            mu, a, r = (x.unflatten(0, (batch, *windows.counts)) for x in routed.values())
            pose, activation = mu, a
            name = f"conv_caps_{index}"
            stages |= {f"{name}_pose": mu, f"{name}_activation": a, f"{name}_coupling": r}
        routed = self.route(self.class_votes(pose), activation.flatten(1), self.class_caps)
        return stages | class_stages(routed)

    def class_votes(self, pose: Tensor) -> Tensor:
        """`[B, Y, X, types, D]` -> `[B, Y X types, classes, D]`, with the positions added."""
        rows, columns = pose.shape[1:3]
        weights = self.class_caps.weights.repeat(1, rows * columns, 1, 1, 1)
        votes = self.votes(pose.flatten(1, 3), weights).unflatten(1, (rows, columns, -1))
        added = votes.new_zeros(rows, columns, 1, 1, self.dim)
        for y in range(rows):
            added[y, ..., 0] = y / rows
        for x in range(columns):
            added[:, x, ..., 1] = x / columns
        return (votes + added).flatten(1, 3)

    def votes(self, pose: Tensor, weights: Tensor) -> Tensor:
        """Poses `[N, I, D]` and matrices `[1, I, J, P, P]` -> `[N, I, J, D]`."""
        return (pose.unflatten(2, (1, self.side, self.side)) @ weights).flatten(3)

    def route(self, votes: Tensor, activation: Tensor, layer: Any) -> Stages:
        """Votes `[N, I, J, D]`, activations `[N, I]` -> capsules, lengths and coupling."""
        r = torch.full_like(votes[..., 0], 1 / votes.shape[2])
        for _ in range(self.iterations):
            # M-step.
            assigned = r * activation[:, :, None]
            assigned = assigned / (assigned.sum(dim=2, keepdim=True) + EPSILON)
            mass = assigned.sum(dim=1)
            share = (assigned / (mass[:, None] + EPSILON))[..., None]
            mu = (share * votes).sum(dim=1)
            noise = (votes - mu[:, None]) ** 2
            variance = (share * noise).sum(dim=1) + EPSILON
            log_sigma = torch.log(variance) / 2
            cost = ((layer.beta_u[:, None] + log_sigma) * mass[..., None]).sum(dim=2)
            logit = INVERSE_TEMPERATURE * (layer.beta_a - cost)
            coupling = r
            # E-step.
            log_p = (
                -noise / (2 * variance[:, None]) - log_sigma[:, None] - math.log(2 * math.pi) / 2
            )
            r = torch.softmax(log_p.sum(dim=3) + functional.logsigmoid(logit)[:, None], dim=2)
        return {"capsules": mu, "lengths": torch.sigmoid(logit), "coupling": coupling}

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The spread loss: squares of all classes, of which that of the label is taken off."""
        a = stages["lengths"]
        of_label = a.gather(1, labels[:, None])
        squares = torch.relu(0.9 - (of_label - a)) ** 2
        return "spread", squares.sum(dim=1) - 0.9**2
