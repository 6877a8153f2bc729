"""The matrix capsules of yl-1993/Matrix-Capsules-EM-PyTorch, as that project computes them."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Stages, batch_norm, group, nhwc, zeros
from parity.reference.models._base import ModelReference, capsule_stages, class_stages
from parity.reference.windows import Windows, matrix_votes

EPSILON = 1e-8
INVERSE_TEMPERATURE = 1e-3


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
    loss = "spread"
    input_mean = 0.1307
    input_std = 0.3081
    routings: ClassVar = {"routing": "em"}
    published_iterations = 2
    normalises_batch = True
    idle = ("features.conv.bias",)
    # The 3 x 3 x 8 capsules that a window holds; 9 x 11 positions of a filter.
    longest_sums = (72, 99)

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
        self.types, self.dim = primary_types, pose_dim
        self.iterations = iterations
        self.conv1 = nn.Conv2d(channels, conv_features, conv_kernel, stride=2, padding=2)
        self.bn1 = nn.BatchNorm2d(conv_features, eps=1e-3)
        self.primary_caps = group(
            pose=nn.Conv2d(conv_features, primary_types * pose_dim, 1),
            a=nn.Conv2d(conv_features, primary_types, 1),
        )
        grid = ((height + 4 - conv_kernel) // 2 + 1, (width + 4 - conv_kernel) // 2 + 1)
        self.windows = Windows.stack(grid, caps_kernels, strides=(2, 1))
        in_types = (primary_types, *caps_types)
        for index, (types, windows) in enumerate(zip(caps_types, self.windows, strict=True)):
            layer = self.capsules(windows.size**2 * in_types[index], types)
            self.add_module(f"conv_caps{index + 1}", layer)
        self.class_caps = self.capsules(caps_types[-1], num_classes)

    def capsules(self, below: int, above: int) -> Any:
        """A capsule layer with a matrix for each pair."""
        side = math.isqrt(self.dim)
        weights = nn.Parameter(torch.randn(1, below, above, side, side))
        return group(weights=weights, beta_u=zeros(above), beta_a=zeros(above))

    def deviation(self, name: str) -> float | None:
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
            layer.weights.add_(torch.eye(math.isqrt(self.dim)))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Runs the network, see `ModelReference`; labels make no difference."""
        features = torch.relu(batch_norm(self.conv1(images), self.bn1))
        M = nhwc(self.primary_caps.pose(features)).unflatten(3, (self.types, self.dim))
        a = nhwc(torch.sigmoid(self.primary_caps.a(features)))
        stages = {"features": nhwc(features)} | capsule_stages("primary_caps", M, a)
        for index, windows in enumerate(self.windows):
            layer = getattr(self, f"conv_caps{index + 1}")
            votes = matrix_votes(windows.seen(M), layer.weights[0])
            M, a, r = windows.on_grid(self.route(votes, windows.seen(a), layer))
            stages |= capsule_stages(f"conv_caps_{index}", M, a, r)
        routed = self.route(self.class_votes(M), a.flatten(1), self.class_caps)
        return stages | class_stages(routed)

    def class_votes(self, pose: Tensor) -> Tensor:
        """`[B, Y, X, types, D]` -> `[B, Y X types, classes, D]`, with the positions added."""
        rows, columns = pose.shape[1:3]
        weights = self.class_caps.weights[0].repeat(rows * columns, 1, 1, 1)
        votes = matrix_votes(pose.flatten(1, 3), weights).unflatten(1, (rows, columns, -1))
        added = votes.new_zeros(rows, columns, 1, 1, self.dim)
        for y in range(rows):
            added[y, ..., 0] = y / rows
        for x in range(columns):
            added[:, x, ..., 1] = x / columns
        return (votes + added).flatten(1, 3)

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
