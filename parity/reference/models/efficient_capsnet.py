"""The network of Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491: Efficient-CapsNet."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from capsjax import Sizes
from parity.reference._parts import Stages, batch_norm, class_mask, length
from parity.reference.models._base import DenseDecoder, ModelReference, class_stages
from parity.reference.routing.self_attention import SelfAttention, exponential_squash


class EfficientCapsNet(ModelReference):
    """Convolution, rectifier and batch normalisation, some times; then a few capsules."""

    parts = (
        "convolutions.0",
        "norms.0",
        "convolutions.1",
        "norms.1",
        "primary_caps",
        "class_caps",
        "decoder",
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
        self.sizes = sizes
        height, width, channels = sizes["image_shape"]
        features, dim = sizes["features"], sizes["primary_dim"]
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        below, side = channels, torch.tensor([height, width])
        for filters, kernel, stride in zip(
            features, sizes["kernel_sizes"], sizes["strides"], strict=True
        ):
            self.convolutions.append(nn.Conv2d(below, filters, kernel, stride=stride))
            self.norms.append(nn.BatchNorm2d(filters, eps=1e-3))
            below, side = filters, (side - kernel) // stride + 1
        kernel = sizes["primary_kernel"]
        self.primary_caps = nn.Module()
        self.primary_caps.conv = nn.Conv2d(below, below, kernel, groups=below)
        in_capsules = int(torch.prod(side - kernel + 1)) * below // dim
        classes, class_dim = sizes["num_classes"], sizes["class_dim"]
        self.class_caps = nn.Module()
        self.class_caps.kernel = nn.Parameter(torch.zeros(in_capsules, classes, class_dim, dim))
        self.class_caps.routing = SelfAttention(Sizes(in_capsules, dim, classes, class_dim))
        self.decoder = DenseDecoder(
            classes * class_dim, sizes["decoder_hidden"], sizes["image_shape"]
        )

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Class capsules of a length around the margins."""
        return 0.5 if name == "class_caps.kernel" else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        stages: Stages = {}
        x = images
        for index, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            maps = convolution(x)
            x = batch_norm(torch.relu(maps), norm)
            stages[f"convolutions_{index}"] = maps.permute(0, 2, 3, 1)
            stages[f"norms_{index}"] = x.permute(0, 2, 3, 1)
        s = self.primary_caps.conv(x).permute(0, 2, 3, 1)
        u = exponential_squash(s.reshape(len(s), -1, self.sizes["primary_dim"]))
        votes = torch.einsum("ijdk,bik->bijd", self.class_caps.kernel, u)
        routed = self.class_caps.routing(votes, length(u), u)
        stages |= {
            "primary_caps_pose": u,
            "primary_caps_activation": length(u),
            **class_stages(routed),
            "mask": class_mask(routed["lengths"], labels),
        }
        stages["decoder"] = self.decoder(routed["capsules"], stages["mask"])
        return stages | {"reconstruction": stages["decoder"]}
