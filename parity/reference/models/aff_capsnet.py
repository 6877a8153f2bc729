"""The network of Gu and Tresp 2020, arXiv:1911.07968: shared transformations, no routing."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from capsjax import Sizes
from parity.reference._parts import Stages, class_mask, length
from parity.reference.models._base import DenseDecoder, ModelReference, class_stages
from parity.reference.models.capsnet import squash
from parity.reference.routing.uniform import Uniform


class AffCapsNet(ModelReference):
    """CapsNet, in which all primary capsules vote with the same matrices and count alike."""

    parts = ("features", "primary_caps", "class_caps", "decoder")
    tiny: ClassVar = {
        "image_shape": (8, 6, 2),
        "num_classes": 10,
        "conv_features": 8,
        "conv_kernel": 3,
        "primary_types": 3,
        "primary_dim": 4,
        "primary_kernel": 2,
        "primary_stride": 2,
        "class_dim": 6,
        "decoder_hidden": (12, 20),
    }
    longest_sums = (96, 24 * 18)

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        self.sizes = sizes
        channels = sizes["image_shape"][2]
        features, primary = sizes["conv_features"], sizes["primary_types"] * sizes["primary_dim"]
        kernel, self.stride = sizes["primary_kernel"], sizes["primary_stride"]
        self.features = nn.Module()
        self.features.conv = nn.Conv2d(channels, features, sizes["conv_kernel"])
        self.primary_caps = nn.Module()
        self.primary_caps.conv = nn.Conv2d(features, primary, kernel, stride=self.stride)
        self.class_caps = nn.Module()
        self.class_caps.kernel = nn.Parameter(
            torch.zeros(1, sizes["num_classes"], sizes["class_dim"], sizes["primary_dim"])
        )
        self.routing = Uniform(Sizes(0, 0, 0, 0))
        self.decoder = DenseDecoder(
            sizes["num_classes"] * sizes["class_dim"],
            sizes["decoder_hidden"],
            sizes["image_shape"],
        )

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Class capsules of a length around the margins."""
        return 1.0 if name == "class_caps.kernel" else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        features = torch.relu(self.features.conv(images))
        maps = self.primary_caps.conv(features)
        batch, _, height, width = maps.shape
        types, dim = self.sizes["primary_types"], self.sizes["primary_dim"]
        s = maps.reshape(batch, types, dim, height, width).permute(0, 3, 4, 1, 2)
        u = squash(s.reshape(batch, -1, dim))
        votes = torch.stack([u @ W.T for W in self.class_caps.kernel[0]], dim=2)
        routed = self.routing(votes, length(u), u)
        stages = {
            "features": features.permute(0, 2, 3, 1),
            "primary_caps_pose": u,
            "primary_caps_activation": length(u),
            **class_stages(routed),
            "mask": class_mask(routed["lengths"], labels),
        }
        stages["decoder"] = self.decoder(routed["capsules"], stages["mask"])
        return stages | {"reconstruction": stages["decoder"]}
