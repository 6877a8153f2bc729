"""The Efficient-CapsNet of akhdanfadh/efficient-capsnet-pytorch, as that project computes it."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from parity.reference._parts import (
    NamedDecoder,
    Stages,
    batch_norm,
    class_mask,
    dense_layers,
    drawn_by_channel,
    group,
    length,
    nhwc,
    zeros,
)
from parity.reference.models import efficient_capsnet
from parity.reference.models._base import ModelReference, capsule_stages, class_stages
from parity.reference.routing.self_attention import exponential_squash


class EfficientCapsNet(ModelReference):
    """A port of the authors' network to PyTorch, with normalisation and lengths of its own.

    - Convolution, batch normalisation, rectifier; the paper's code has the last two the other way
      round. The constants are PyTorch's: 1e-5 is added to a variance, and averages keep 0.9.
    - Self-attention as in the authors' code. Weights `[J, I, K, D]`, prior `[J, I, 1]`.
    - Lengths are `sqrt(|v|^2 + 1e-7)`, those that the decoder's mask is made of in test without.
    - Losses: the paper's margin, and 0.0005 times the MEAN squared error over the pixels.
    - Decoder: the capsule of the label in training, the longest one in test. It draws one channel
      after the other.

    State dict: `efficient_capsnet.conv{1,2,...}`, `efficient_capsnet.bn{1,2,...}`,
    `efficient_capsnet.primary_caps.dw_conv2d`, `efficient_capsnet.routing_caps.W` and `.b`,
    `generator.fc{1,2,3}`. The network without decoder has the first of them without
    `efficient_capsnet.`.

    The sizes are those of `capsjax.EfficientCapsNet`, by default the published ones.
    """

    parts = efficient_capsnet.EfficientCapsNet.parts
    tiny: ClassVar = efficient_capsnet.EfficientCapsNet.tiny
    reconstruction_over_pixels = "mean"
    normalises_batch = True
    shows_rounding = True  # 1e-5 is added to a variance
    idle = ("convolutions.0.bias", "convolutions.1.bias")
    longest_sums = efficient_capsnet.EfficientCapsNet.longest_sums

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        num_classes: int = 10,
        *,
        features: tuple[int, ...] = (32, 64, 64, 128),
        kernel_sizes: tuple[int, ...] = (5, 3, 3, 3),
        strides: tuple[int, ...] = (1, 1, 1, 2),
        primary_dim: int = 8,
        primary_kernel: int = 9,
        class_dim: int = 16,
        decoder_hidden: tuple[int, ...] | None = (512, 1024),
    ) -> None:
        super().__init__()
        self.primary_dim = primary_dim
        self.depth, self.image_shape = len(features), image_shape
        height, width, below = image_shape
        members: dict[str, Any] = {}
        for number, (filters, kernel, stride) in enumerate(
            zip(features, kernel_sizes, strides, strict=True), start=1
        ):
            members[f"conv{number}"] = nn.Conv2d(below, filters, kernel, stride=stride)
            members[f"bn{number}"] = nn.BatchNorm2d(filters)
            height, width = ((side - kernel) // stride + 1 for side in (height, width))
            below = filters
        positions = (height - primary_kernel + 1) * (width - primary_kernel + 1)
        in_capsules = positions * below // primary_dim
        depthwise = nn.Conv2d(below, below, primary_kernel, groups=below)
        members["primary_caps"] = group(dw_conv2d=depthwise)
        members["routing_caps"] = group(
            W=nn.Parameter(torch.randn(num_classes, in_capsules, primary_dim, class_dim)),
            b=zeros(num_classes, in_capsules, 1),
        )
        self.has_decoder = decoder_hidden is not None
        if decoder_hidden is None:
            for name, member in members.items():
                self.add_module(name, member)
        else:
            self.efficient_capsnet = group(**members)
            layers = dense_layers(num_classes * class_dim, *decoder_hidden, math.prod(image_shape))
            self.generator = NamedDecoder("fc", layers)

    @property
    def without_decoder(self) -> Any:
        """The module with the parameters of the convolutions and capsules."""
        return self.efficient_capsnet if self.has_decoder else self

    def deviation(self, name: str) -> float | None:
        """Class capsules of a length around the margins."""
        return 0.5 if name.endswith("routing_caps.W") else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Runs the network, see `ModelReference`; without labels as in test."""
        net = self.without_decoder
        stages: Stages = {}
        x = images
        for index in range(self.depth):
            maps = getattr(net, f"conv{index + 1}")(x)
            normal = batch_norm(maps, getattr(net, f"bn{index + 1}"))
            x = torch.relu(normal)
            stages |= {f"convolutions_{index}": nhwc(maps), f"norms_{index}": nhwc(normal)}
        # The public code knows of one position alone; more are numbered as in capsjax.
        s = nhwc(net.primary_caps.dw_conv2d(x))
        u = exponential_squash(s.reshape(len(s), -1, self.primary_dim))
        routed = self.route(torch.einsum("jikd,bik->bjid", net.routing_caps.W, u))
        stages |= capsule_stages("primary_caps", u) | class_stages(routed)
        stages["lengths"] = torch.sqrt(length(routed["capsules"]) ** 2 + 1e-7)
        stages["mask"] = class_mask(routed["lengths"], labels)
        if self.has_decoder:
            masked = routed["capsules"] * stages["mask"][:, :, None]
            drawn = drawn_by_channel(self.generator(masked.flatten(1)), self.image_shape)
            stages |= {"decoder": drawn, "reconstruction": drawn}
        return stages

    def route(self, votes: Tensor) -> Stages:
        """Votes `[B, J, I, D]` -> capsules `[B, J, D]`, coupling `[B, I, J]` and lengths."""
        logits = (votes @ votes.transpose(2, 3)).sum(dim=2) / math.sqrt(votes.shape[3])
        coupling = torch.softmax(logits, dim=1)[..., None] + self.without_decoder.routing_caps.b
        v = exponential_squash((coupling * votes).sum(dim=2))
        coupling = coupling.squeeze(3).transpose(1, 2)
        return {"capsules": v, "coupling": coupling, "lengths": length(v)}
