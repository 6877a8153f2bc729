"""CapsNet in PyTorch written for speed: the same network as the reference, no step spelt out."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FastCapsNet(nn.Module):
    """The network of Sabour, Frosst and Hinton 2017, arXiv:1710.09829, in products of matrices.

    Votes of all examples are one batched product, each routing iteration two, and nothing is kept
    that the backward pass does not need. It computes what `parity.reference.CapsNet` computes, with
    the same state dict.

    The arguments are those of `parity.reference.CapsNet`. Names of sizes: B examples, I primary
    capsules of K dimensions and T types, J class capsules of D.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (28, 28, 1),
        num_classes: int = 10,
        *,
        conv_features: int = 256,
        conv_kernel: int = 9,
        primary_types: int = 32,
        primary_dim: int = 8,
        primary_kernel: int = 9,
        primary_stride: int = 2,
        class_dim: int = 16,
        iterations: int = 3,
        decoder_hidden: Sequence[int] = (512, 1024),
    ) -> None:
        super().__init__()
        height, width, channels = image_shape
        rows, columns = (
            (side - conv_kernel + 1 - primary_kernel) // primary_stride + 1
            for side in (height, width)
        )
        self.num_classes, self.class_dim, self.iterations = num_classes, class_dim, iterations
        self.primary_dim = primary_dim
        self.conv1 = nn.Conv2d(channels, conv_features, conv_kernel)
        self.primary = nn.Conv2d(
            conv_features, primary_types * primary_dim, primary_kernel, stride=primary_stride
        )
        in_capsules = rows * columns * primary_types
        self.class_caps: Any = nn.Module()
        self.class_caps.weight = nn.Parameter(
            0.1 * torch.randn(in_capsules, num_classes, class_dim, primary_dim)
        )
        sizes = [num_classes * class_dim, *decoder_hidden, height * width * channels]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.decoder = nn.Sequential(*layers[:-1], nn.Sigmoid())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images `[B, C, H, W]` -> lengths `[B, J]` and reconstructions `[B, H W C]`."""
        primary = self.primary(torch.relu(self.conv1(images)))
        # [B, T K, y, x] -> [I, B, K], capsule by position and then type.
        u = primary.permute(2, 3, 1, 0).reshape(-1, self.primary_dim, len(images)).transpose(1, 2)
        weight = self.class_caps.weight.flatten(1, 2)  # [I, J D, K]
        u_hat = torch.bmm(squash(u), weight.transpose(1, 2))  # [I, B, J D]
        u_hat = u_hat.view(*u_hat.shape[:2], self.num_classes, self.class_dim).permute(1, 2, 0, 3)
        v = self.route(u_hat)
        lengths = v.norm(dim=-1)
        shown = lengths.argmax(dim=1) if labels is None else labels
        mask = functional.one_hot(shown, self.num_classes).to(v.dtype)
        return lengths, self.decoder((v * mask[:, :, None]).flatten(1))

    def route(self, u_hat: Tensor) -> Tensor:
        """Votes `[B, J, I, D]` -> class capsules `[B, J, D]`."""
        v = squash(u_hat.sum(dim=2) / self.num_classes)  # all coupling coefficients are equal
        b = torch.zeros((), device=v.device)
        for _ in range(1, self.iterations):
            b = b + torch.matmul(u_hat, v[..., None])  # [B, J, I, 1]
            c = torch.softmax(b, dim=1)
            v = squash(torch.matmul(c.transpose(2, 3), u_hat).squeeze(2))
        return v


def loss_of(lengths: Tensor, decoded: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Margin loss and 0.0005 times the summed squared error, mean over the batch.

    Args:
        lengths: `[B, J]`.
        decoded: `[B, H W C]`.
        images: `[B, C, H, W]`.
        labels: integers `[B]`.
    """
    present = functional.one_hot(labels, lengths.shape[1]).to(lengths.dtype)
    margin = present * torch.relu(0.9 - lengths) ** 2
    margin = margin + 0.5 * (1 - present) * torch.relu(lengths - 0.1) ** 2
    error = (decoded - images.permute(0, 2, 3, 1).flatten(1)) ** 2
    return (margin.sum(dim=1) + 0.0005 * error.sum(dim=1)).mean()


def squash(s: Tensor) -> Tensor:
    """Equation 1 over the last axis."""
    n = s.norm(dim=-1, keepdim=True)
    return s * (n / (1 + n**2))
