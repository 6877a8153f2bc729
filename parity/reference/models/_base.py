"""The base of the models' references, layers that several have, and names of stages."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import (
    Reference,
    Stages,
    batch_norm,
    class_mask,
    dense_layers,
    length,
    rectified,
)


class ModelReference(Reference):
    """A network in plain PyTorch beside the capsjax model of the same arguments.

    A subclass takes the arguments of the capsjax model, and `iterations` where that has a routing
    that iterates. Its `forward(images, labels)` returns by name, in order of computation:

    - what each of `parts` returns, with axes in capsjax's order: an array under the name of the
      part, capsules as `PART_pose` and `PART_activation`, coupling as `PART_coupling`; dots in a
      part's name become underscores;
    - `capsules`, `coupling`, `lengths`, `logits`, `mask` and `reconstruction` (NHWC), as far as the
      model has them.
    """

    # Arguments of a network in which no two sizes are equal that could be confused.
    tiny: ClassVar[Mapping[str, Any]]
    # The loss of the classes with which capsjax trains it, by its name in `--loss`.
    loss: ClassVar[str] = "margin"
    # Arguments of the capsjax model that are routings which iterate: the names of them.
    routings: ClassVar[Mapping[str, str]] = {}
    published_iterations: ClassVar[int] = 3  # of the routing, with which the network is compared
    normalises_batch: ClassVar[bool] = False  # see `parity.check.subjects`
    pools: ClassVar[bool] = False  # whether the largest of several values is passed on; see there
    # Whether, on images that are alike, a normalisation makes the rounding of equal numbers as
    # large as what they are compared by.
    shows_rounding: ClassVar[bool] = False
    # Whether on images near zero even the squares of float64 activations are zero.
    vanishes: ClassVar[bool] = False
    # Terms of the longest sum of the tiny network, forwards for one example and backwards for each
    # example of a batch.
    longest_sums: ClassVar[tuple[int, int]]

    @classmethod
    def with_iterations(cls, iterations: int) -> dict[str, Any]:
        """Arguments of the reference for a routing with so many iterations; none if it has none."""
        return {"iterations": iterations} if cls.routings else {}

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network on a batch and keeps what it computes on the way."""
        raise NotImplementedError


class NormalizedConv(nn.Module):
    """A convolution without biases, of maps that are padded by half its kernel, and its norm."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, maps: Tensor) -> Tensor:
        """The rectifier is the caller's."""
        return batch_norm(self.conv(maps), self.norm)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, rectified after the sum.

    Where the maps do not fit, the shortcut is a 1x1 convolution, or with `zeros` filled up with
    zeros on both sides.
    """

    def __init__(self, n_in: int, n_out: int, stride: int, *, zeros: bool = False) -> None:
        super().__init__()
        self.stride, self.added = stride, n_out - n_in
        self.first = NormalizedConv(n_in, n_out, stride=stride)
        self.second = NormalizedConv(n_out, n_out)
        fits = stride == 1 and n_in == n_out
        self.around = None if zeros or fits else NormalizedConv(n_in, n_out, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        way = self.second(torch.relu(self.first(maps)))
        if self.around is not None:
            return torch.relu(way + self.around(maps))
        before, seen = self.added // 2, maps[:, :, :: self.stride, :: self.stride]
        return torch.relu(way + functional.pad(seen, (0, 0, 0, 0, before, self.added - before)))


class DenseDecoder(nn.Module):
    """Dense layers, named as in capsjax: rectifiers between, a sigmoid at the end."""

    def __init__(self, inputs: int, hidden: Sequence[int], image_shape: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.layers = nn.ModuleList(dense_layers(inputs, *hidden, math.prod(image_shape)))

    def forward(self, masked: Tensor) -> Tensor:
        """Poses `[B, J, D]`, all but one of them zero -> images NHWC."""
        return rectified(self.layers, masked.flatten(1)).unflatten(1, tuple(self.image_shape))


def capsule_stages(
    part: str, pose: Tensor, activation: Tensor | None = None, coupling: Tensor | None = None
) -> Stages:
    """Capsules of a part of the network, by default with the lengths of their poses."""
    activation = length(pose) if activation is None else activation
    stages = {f"{part}_pose": pose, f"{part}_activation": activation}
    return stages if coupling is None else stages | {f"{part}_coupling": coupling}


def class_stages(routed: Stages) -> Stages:
    """The result of a routing, as the part `class_caps` and as the network's result."""
    result = {name: routed[name] for name in ("capsules", "coupling", "lengths")}
    part = capsule_stages("class_caps", result["capsules"], result["lengths"], result["coupling"])
    return part | result


def with_decoder(
    stages: Stages, routed: Stages, labels: Tensor, decode: Callable[[Tensor], Tensor]
) -> Stages:
    """Adds a routing's result, its mask, and what is decoded of it: the part `decoder`, the result.

    `decode` makes images NHWC of poses `[B, J, D]`, all but one of them zero.
    """
    stages = stages | class_stages(routed)
    mask = class_mask(stages["lengths"], labels)
    drawn = decode(stages["capsules"] * mask[:, :, None])
    return stages | {"mask": mask, "decoder": drawn, "reconstruction": drawn}
