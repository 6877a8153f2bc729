"""The network of Rajasegaran et al. 2019, arXiv:1904.09546: DeepCaps."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

import capsjax
from parity.reference._parts import Stages, batch_norm, class_mask, length
from parity.reference.models._base import ModelReference, class_stages
from parity.reference.models.capsnet import squash
from parity.reference.routing.dynamic import Dynamic

CELL = ("enter", "middle", "leave", "shortcut")


class DeepCaps(ModelReference):
    """Convolutions squashed by capsules, with a shortcut in every cell, and the last one routed."""

    parts = (
        "convolution",
        "norm",
        *(f"cells.{cell}.{layer}" for cell in range(2) for layer in CELL),
        "class_caps",
        "decoder",
    )
    tiny: ClassVar = {
        "image_shape": (10, 13, 2),
        "num_classes": 10,
        "conv_features": 5,
        "types": 3,
        "dims": (4, 4),
        "class_dim": 6,
        "decoder_channels": 7,
        "decoder_features": (8, 9),
        "decoder_strides": (1, 2),
    }
    normalises_batch = True
    longest_sums = (260, 5 * 7 * 9 * 12)

    @classmethod
    def with_iterations(cls, iterations: int) -> dict[str, Any]:
        """Both routings are dynamic."""
        return {"iterations": iterations}

    @classmethod
    def capsjax_options(cls, iterations: int) -> dict[str, Any]:
        """Both routings are dynamic."""
        routing = capsjax.create_routing("dynamic", iterations=iterations)
        return {"routing": routing, "grid_routing": routing}

    def __init__(self, *, iterations: int, **sizes: Any) -> None:
        super().__init__()
        self.sizes = sizes
        self.routing = Dynamic(capsjax.Sizes(0, 0, 0, 0), iterations)
        height, width, channels = sizes["image_shape"]
        types, dims = sizes["types"], sizes["dims"]
        self.convolution = nn.Conv2d(channels, sizes["conv_features"], 3, padding=1)
        self.norm = nn.BatchNorm2d(sizes["conv_features"], eps=1e-3)
        self.cells = nn.ModuleList()
        below, capsules = sizes["conv_features"], []
        y, x = height, width
        for number, dim in enumerate(dims, start=1):
            cell = nn.ModuleDict()
            for name in CELL:
                cell[name] = nn.Module()
                seen = below if name == "enter" else types * dim
                if name == "shortcut" and number == len(dims):
                    cell[name].conv = nn.Conv2d(dim, types * dim, 3, bias=False)
                else:
                    cell[name].pose = nn.Conv2d(seen, types * dim, 3, bias=False)
            self.cells.append(cell)
            below, y, x = types * dim, (y + 1) // 2, (x + 1) // 2
            capsules.append(y * x * types)
        in_capsules, classes = sum(capsules[-2:]), sizes["num_classes"]
        self.class_caps = nn.Module()
        self.class_caps.kernel = nn.Parameter(
            torch.zeros(in_capsules, classes, sizes["class_dim"], dims[-1])
        )
        scale = 1
        for stride in sizes["decoder_strides"]:
            scale *= stride
        self.small = (sizes["decoder_channels"], -(-height // scale), -(-width // scale))
        self.decoder = nn.Module()
        small = self.small[0] * self.small[1] * self.small[2]
        self.decoder.dense = nn.Linear(sizes["class_dim"], small)
        self.decoder.norm = nn.BatchNorm2d(self.small[0], eps=1e-3)
        filters = (self.small[0], *sizes["decoder_features"], channels)
        self.decoder.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 3, stride=stride)
            for (a, b), stride in zip(
                pairwise(filters), (*sizes["decoder_strides"], 1), strict=True
            )
        )

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """Class capsules of a length around the margins."""
        return 0.3 if name == "class_caps.kernel" else None

    @torch.no_grad()
    def draw(self, generator: torch.Generator, *, biases: bool) -> None:
        """Draws weights, those of the cells three times as large as usual.

        Poses then keep their length; a short one is squared in each layer, and its error doubled.
        """
        super().draw(generator, biases=biases)
        for parameter in self.cells.parameters():
            parameter.mul_(3)

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network, see `ModelReference`."""
        maps = self.convolution(images)
        x = batch_norm(torch.relu(maps), self.norm)
        stages = {"convolution": maps.permute(0, 2, 3, 1), "norm": x.permute(0, 2, 3, 1)}
        flat = []
        for number, cell in enumerate(self.cells):
            first = self._capsules(cell["enter"].pose, x, stride=2)
            middle = self._capsules(cell["middle"].pose, _side_by_side(first))
            leave = self._capsules(cell["leave"].pose, _side_by_side(middle))
            stages |= _named(f"cells_{number}_enter", first)
            stages |= _named(f"cells_{number}_middle", middle)
            stages |= _named(f"cells_{number}_leave", leave)
            if number < len(self.cells) - 1:
                past = self._capsules(cell["shortcut"].pose, _side_by_side(first))
                stages |= _named(f"cells_{number}_shortcut", past)
            else:
                past, coupling = self._routed(cell["shortcut"].conv, first)
                stages |= _named(f"cells_{number}_shortcut", past)
                stages[f"cells_{number}_shortcut_coupling"] = coupling
            out = leave + past
            flat.append(out.flatten(1, 3))
            x = _side_by_side(out)
        u = torch.cat([flat[-1], flat[-2]], dim=1)
        votes = torch.einsum("ijdk,bik->bijd", self.class_caps.kernel, u)
        routed = self.routing(votes, length(u), u)
        mask = class_mask(routed["lengths"], labels)
        reconstruction = self._decode((routed["capsules"] * mask[:, :, None]).sum(dim=1))
        return stages | {
            **class_stages(routed),
            "mask": mask,
            "decoder": reconstruction,
            "reconstruction": reconstruction,
        }

    def _capsules(self, convolution: nn.Conv2d, x: Tensor, stride: int = 1) -> Tensor:
        """Maps NCHW -> poses `[B, H, W, types, dim]`."""
        s = functional.conv2d(_padded(x, stride), convolution.weight, stride=stride)
        batch, _, height, width = s.shape
        return squash(s.permute(0, 2, 3, 1).reshape(batch, height, width, self.sizes["types"], -1))

    def _routed(self, convolution: nn.Conv2d, below: Tensor) -> tuple[Tensor, Tensor]:
        """The 3D convolution of the paper, type by type along its first axis."""
        batch, height, width, types, dim = below.shape
        depth = below.permute(0, 3, 4, 1, 2).reshape(batch, 1, types * dim, height, width)
        votes = functional.conv3d(
            functional.pad(depth, (1, 1, 1, 1)),
            convolution.weight[:, None],
            stride=(dim, 1, 1),
        )  # [B, types * dim above, types below, H, W]
        votes = votes.permute(0, 2, 3, 4, 1).reshape(batch, types, height * width * types, dim)
        routed = self.routing(votes, below[..., 0].mean(dim=(1, 2)), below)
        above = (height, width, types)
        coupling = routed["coupling"].reshape(batch, types, *above)
        return routed["capsules"].reshape(batch, *above, dim), coupling

    def _decode(self, pose: Tensor) -> Tensor:
        """Poses `[B, D]` -> images NHWC."""
        channels, height, width = self.small
        x = torch.relu(self.decoder.dense(pose))
        x = x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        x = batch_norm(x, self.decoder.norm)
        for convolution in self.decoder.convolutions:
            stride = convolution.stride[0]
            start = max(3 - stride, 0) // 2
            height, width = stride * height, stride * width
            x = convolution(x)[:, :, start : start + height, start : start + width]
        height, width, _ = self.sizes["image_shape"]
        return torch.relu(x[:, :, :height, :width]).permute(0, 2, 3, 1)


def _named(name: str, pose: Tensor) -> Stages:
    return {f"{name}_pose": pose, f"{name}_activation": length(pose)}


def _side_by_side(pose: Tensor) -> Tensor:
    """Poses `[B, H, W, types, dim]` -> maps NCHW."""
    return pose.flatten(3).permute(0, 3, 1, 2)


def _padded(x: Tensor, stride: int) -> Tensor:
    """Zeros around maps, such that a 3x3 window fits once for every stride, more at the end."""
    sides = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
        sides += [total // 2, total - total // 2]
    return functional.pad(x, sides)
