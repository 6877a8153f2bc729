"""The network of Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491: Efficient-CapsNet."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, batch_norm, group, length, nhwc, zeros
from parity.reference.models._base import DenseDecoder, ModelReference, capsule_stages, with_decoder
from parity.reference.routing.self_attention import SelfAttention, exponential_squash


class EfficientCapsNet(ModelReference):
    """Convolution, rectifier and batch normalisation, some times; then a few capsules."""

    parts = (
        *("convolutions.0", "norms.0", "convolutions.1", "norms.1"),
        *("primary_caps", "class_caps", "decoder"),
    )
    tiny: ClassVar = {
        "image_shape": (9, 10, 2),
        "num_classes": 10,
        "features": (7, 12),
        "kernel_sizes": (3, 2),
        "strides": (1, 2),
        "primary_dim": 4,
        "primary_kernel": 3,
        "class_dim": 6,
        "decoder_hidden": (11, 20),
    }
    normalises_batch = True
    longest_sums = (180, 7 * 8 * 4 * 12)

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        height, width, below = sizes["image_shape"]
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for filters, kernel, stride in zip(
            sizes["features"], sizes["kernel_sizes"], sizes["strides"], strict=True
        ):
            self.convolutions.append(nn.Conv2d(below, filters, kernel, stride=stride))
            self.norms.append(nn.BatchNorm2d(filters, eps=1e-3))
            height, width = ((side - kernel) // stride + 1 for side in (height, width))
            below = filters
        kernel, dim = sizes["primary_kernel"], sizes["primary_dim"]
        self.dim = dim
        self.primary_caps = group(conv=nn.Conv2d(below, below, kernel, groups=below))
        in_capsules = (height - kernel + 1) * (width - kernel + 1) * below // dim
        classes, class_dim = sizes["num_classes"], sizes["class_dim"]
        self.class_caps = group(
            kernel=zeros(in_capsules, classes, class_dim, dim),
            routing=SelfAttention(Sizes(in_capsules, dim, classes, class_dim)),
        )
        self.decoder = DenseDecoder(
            classes * class_dim, sizes["decoder_hidden"], sizes["image_shape"]
        )

    def deviation(self, name: str) -> float | None:
        """Class capsules of a length around the margins."""
        return 0.5 if name == "class_caps.kernel" else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        stages: Stages = {}
        x = images
        for index, convolution in enumerate(self.convolutions):
            maps = convolution(x)
            x = batch_norm(torch.relu(maps), self.norms[index])
            stages |= {f"convolutions_{index}": nhwc(maps), f"norms_{index}": nhwc(x)}
        s = nhwc(self.primary_caps.conv(x))
        u = exponential_squash(s.reshape(len(s), -1, self.dim))
        votes = torch.einsum("ijdk,bik->bijd", self.class_caps.kernel, u)
        stages |= capsule_stages("primary_caps", u)
        routed = self.class_caps.routing(votes, length(u), u)
        return with_decoder(stages, routed, labels, self.decoder)
