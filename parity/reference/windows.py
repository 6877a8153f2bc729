"""Windows of a capsule convolution, votes by matrices, and a softmax over all parents.

Everything is written out with loops over positions, for windows without padding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from parity.reference._parts import Stages


class Windows:
    """Square windows over a grid of capsules."""

    def __init__(self, grid: tuple[int, int], size: int, stride: int) -> None:
        self.grid, self.size, self.stride = grid, size, stride
        height, width = grid
        self.counts = ((height - size) // stride + 1, (width - size) // stride + 1)

    @classmethod
    def stack(
        cls, grid: tuple[int, int], sizes: Sequence[int], strides: Sequence[int]
    ) -> list["Windows"]:
        """The windows of convolutions one above the other."""
        windows: list[Windows] = []
        for size, stride in zip(sizes, strides, strict=True):
            windows.append(cls(windows[-1].counts if windows else grid, size, stride))
        return windows

    def corners(self) -> list[tuple[int, int]]:
        """Row and column where each window begins, row by row."""
        rows, columns = self.counts
        return [(y * self.stride, x * self.stride) for y in range(rows) for x in range(columns)]

    def seen(self, x: Tensor) -> Tensor:
        """`[B, H, W, types, ...]` -> `[B * windows, I, ...]`, the capsules in each window."""
        cut = [x[:, y : y + self.size, z : z + self.size] for y, z in self.corners()]
        windows = torch.stack(cut, dim=1)  # [B, windows, size, size, types, ...]
        return windows.flatten(2, 4).flatten(0, 1)

    def on_grid(self, routed: Stages) -> list[Tensor]:
        """Poses, activations and coupling `[B, rows, columns, ...]` of the capsules of windows."""
        names = ("capsules", "lengths", "coupling")
        return [routed[name].unflatten(0, (-1, *self.counts)) for name in names]

    def over_all_parents(self, logits: Tensor) -> Tensor:
        """A softmax of logits `[B * windows, I, J]` over the `J` parents in all windows.

        Every logit is put into a table of all capsules below and all parents, in which there is
        minus infinity for those that are not connected.
        """
        windows, parents = len(self.corners()), logits.shape[2]
        types = logits.shape[1] // self.size**2
        by_window = logits.reshape(-1, windows, self.size, self.size, types, parents)
        shape = (len(by_window), *self.grid, types, windows, parents)
        table = torch.full(shape, -torch.inf, dtype=logits.dtype)
        for index, (y, z) in enumerate(self.corners()):
            table[:, y : y + self.size, z : z + self.size, :, index] = by_window[:, index]
        # A capsule that no window sees has no parent, and its shares are not read.
        shares = torch.softmax(table.flatten(4), dim=4).reshape(shape)
        cut = [
            shares[:, y : y + self.size, z : z + self.size, :, index]
            for index, (y, z) in enumerate(self.corners())
        ]
        return torch.stack(cut, dim=1).reshape(logits.shape)


def matrix_votes(pose: Tensor, matrices: Tensor) -> Tensor:
    """Poses `[..., I, D]` times matrices `[I, J, side, side]` -> `[..., I, J, D]`."""
    side = math.isqrt(pose.shape[-1])
    return (pose.unflatten(-1, (1, side, side)) @ matrices).flatten(-2)


def class_votes(pose: Tensor, matrices: Tensor) -> Tensor:
    """Poses `[B, rows, columns, types, D]` -> votes `[B, I, classes, D]`, with places added.

    In the last column of a matrix: the row and the column of the centre, from 0 to 1.
    """
    votes = matrix_votes(pose, matrices)
    rows, columns = pose.shape[1:3]
    side = math.isqrt(pose.shape[-1])
    places = torch.zeros(rows, columns, side, side, dtype=pose.dtype)
    for y in range(rows):
        for x in range(columns):
            places[y, x, 0, -1] = (y + 0.5) / rows
            places[y, x, 1, -1] = (x + 0.5) / columns
    return (votes + places.flatten(2)[:, :, None, None]).flatten(1, 3)
