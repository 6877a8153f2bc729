"""CapsNet with routed layers between primary and class capsules, and that of Gu and Tresp 2020."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes, Stages, group, length, nhwc, zeros
from parity.reference.models._base import DenseDecoder, ModelReference, capsule_stages, with_decoder
from parity.reference.models.capsnet import squash
from parity.reference.routing.dynamic import Dynamic
from parity.reference.routing.uniform import Uniform


class StackedCapsNet(ModelReference):
    """CapsNet in which capsules are routed several times: Sabour, Frosst and Hinton 2017."""

    parts: ClassVar[tuple[str, ...]] = (
        *("features", "primary_caps", "hidden_caps.0", "hidden_caps.1", "class_caps", "decoder"),
    )
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
        "hidden_capsules": (7, 5),
        "class_dim": 6,
        "decoder_hidden": (12, 20),
    }
    routings: ClassVar = {"routing": "dynamic"}
    vanishes = True
    longest_sums = (96, 24 * 18)
    shared: ClassVar = False  # whether all capsules of a layer vote with the same matrices

    def __init__(self, iterations: int = 1, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        features, first, kernel, stride = (
            sizes[name]
            for name in ("conv_features", "conv_kernel", "primary_kernel", "primary_stride")
        )
        self.types, self.dim = sizes["primary_types"], sizes["primary_dim"]
        self.features = group(conv=nn.Conv2d(channels, features, first))
        self.primary_caps = group(
            conv=nn.Conv2d(features, self.types * self.dim, kernel, stride=stride)
        )
        rows, columns = ((side - first + 1 - kernel) // stride + 1 for side in (height, width))
        classes, dim = sizes["num_classes"], sizes["class_dim"]
        counts = (rows * columns * self.types, *sizes.get("hidden_capsules", ()), classes)
        *hidden, self.class_caps = [
            group(kernel=zeros(1 if self.shared else n_in, n_out, dim, below))
            for n_in, n_out, below in zip(counts, counts[1:], (self.dim, dim, dim), strict=False)
        ]
        self.hidden_caps = nn.ModuleList(hidden)
        self.routing = self.make_routing(iterations)
        self.decoder = DenseDecoder(classes * dim, sizes["decoder_hidden"], sizes["image_shape"])

    def make_routing(self, iterations: int) -> nn.Module:
        """The routing of all layers, which has no parameters."""
        return Dynamic(Sizes(0, 0, 0, 0), iterations)

    def deviation(self, name: str) -> float | None:
        """Capsules of a length around the margins."""
        return 1.0 if name.endswith("caps.kernel") or name.startswith("hidden_caps") else None

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        features = torch.relu(self.features.conv(images))
        maps = self.primary_caps.conv(features)
        s = maps.unflatten(1, (self.types, self.dim)).permute(0, 3, 4, 1, 2)
        u = squash(s.flatten(1, 3))
        stages = {"features": nhwc(features)} | capsule_stages("primary_caps", u)
        for index, layer in enumerate(self.hidden_caps):
            routed = self.routing(self.votes(layer, u), length(u), u)
            u = routed["capsules"]
            stages |= capsule_stages(
                f"hidden_caps_{index}", u, routed["lengths"], routed["coupling"]
            )
        routed = self.routing(self.votes(self.class_caps, u), length(u), u)
        return with_decoder(stages, routed, labels, self.decoder)

    def votes(self, layer: Any, u: Tensor) -> Tensor:
        """Poses `[B, I, K]` -> votes `[B, I, J, D]`."""
        W = layer.kernel.expand(u.shape[1], -1, -1, -1)
        return torch.einsum("ijdk,bik->bijd", W, u)


class AffCapsNet(StackedCapsNet):
    """Gu and Tresp 2020, arXiv:1911.07968: all capsules have the same matrices and count alike."""

    parts = ("features", "primary_caps", "class_caps", "decoder")
    tiny: ClassVar = {
        name: value for name, value in StackedCapsNet.tiny.items() if name != "hidden_capsules"
    }
    routings: ClassVar = {}
    vanishes = False
    shared = True

    def make_routing(self, iterations: int) -> nn.Module:
        """No routing."""
        return Uniform(Sizes(0, 0, 0, 0))
