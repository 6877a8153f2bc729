"""The network of Gu and Tresp 2020, arXiv:1911.07968: shared transformations, no routing."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, group, length, nhwc, zeros
from parity.reference.models._base import DenseDecoder, ModelReference, capsule_stages, with_decoder
from parity.reference.models.capsnet import squash
from parity.reference.routing.uniform import Uniform


class AffCapsNet(ModelReference):
    """CapsNet, in which all primary capsules vote with the same matrices and count alike."""

    parts = ("features", "primary_caps", "class_caps", "decoder")
    # No two sizes are equal that could be confused: 3 x 2 positions of 3 types, so 18 capsules.
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
        channels, classes = sizes["image_shape"][2], sizes["num_classes"]
        features, kernel, stride = (
            sizes[name] for name in ("conv_features", "primary_kernel", "primary_stride")
        )
        self.types, self.dim = sizes["primary_types"], sizes["primary_dim"]
        self.features = group(conv=nn.Conv2d(channels, features, sizes["conv_kernel"]))
        self.primary_caps = group(
            conv=nn.Conv2d(features, self.types * self.dim, kernel, stride=stride)
        )
        self.class_caps = group(kernel=zeros(1, classes, sizes["class_dim"], self.dim))
        self.routing = Uniform(Sizes(0, 0, 0, 0))
        self.decoder = DenseDecoder(
            classes * sizes["class_dim"], sizes["decoder_hidden"], sizes["image_shape"]
        )

    def deviation(self, name: str) -> float | None:
        """Class capsules of a length around the margins."""
        return 1.0 if name == "class_caps.kernel" else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        features = torch.relu(self.features.conv(images))
        maps = self.primary_caps.conv(features)
        s = maps.unflatten(1, (self.types, self.dim)).permute(0, 3, 4, 1, 2)
        u = squash(s.flatten(1, 3))
        votes = torch.stack([u @ W.T for W in self.class_caps.kernel[0]], dim=2)
        stages = {"features": nhwc(features)} | capsule_stages("primary_caps", u)
        return with_decoder(stages, self.routing(votes, length(u), u), labels, self.decoder)
