"""What each position of a capsule convolution sees, and a softmax over all parents of a capsule.

Everything is written out with loops over positions, for windows without padding.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def centres(rows: int, columns: int, dim: int, dtype: torch.dtype) -> Tensor:
    """What a vote for a class gets for its place, `[rows, columns, dim]`.

    In the last column of a matrix: the row and the column of the centre, from 0 to 1.
    """
    side = math.isqrt(dim)
    added = torch.zeros(rows, columns, side, side, dtype=dtype)
    for y in range(rows):
        for x in range(columns):
            added[y, x, 0, -1] = (y + 0.5) / rows
            added[y, x, 1, -1] = (x + 0.5) / columns
    return added.flatten(2)


class Windows:
    """Square windows over a grid of capsules.

    Args:
      grid: height and width of the grid.
      size: side of a window.
      stride: between two windows.
    """

    def __init__(self, grid: tuple[int, int], size: int, stride: int) -> None:
        self.grid, self.size, self.stride = grid, size, stride
        height, width = grid
        self.counts = ((height - size) // stride + 1, (width - size) // stride + 1)

    def corners(self) -> list[tuple[int, int]]:
        """Row and column where each window begins, row by row."""
        rows, columns = self.counts
        return [(y * self.stride, x * self.stride) for y in range(rows) for x in range(columns)]

    def seen(self, x: Tensor) -> Tensor:
        """`[B, H, W, types, ...]` -> `[B * windows, I, ...]`, the capsules in each window."""
        cut = [x[:, y : y + self.size, z : z + self.size] for y, z in self.corners()]
        windows = torch.stack(cut, dim=1)  # [B, windows, size, size, types, ...]
        return windows.flatten(2, 4).flatten(0, 1)

    def over_all_parents(self, batch: int) -> Callable[[Tensor], Tensor]:
        """A softmax of logits `[B * windows, I, J]` over the `J` parents in all windows.

        Every logit is put into a table of all capsules below and all parents, in which there is
        minus infinity for those that are not connected.
        """

        def softmax(logits: Tensor) -> Tensor:
            windows, parents = len(self.corners()), logits.shape[2]
            types = logits.shape[1] // self.size**2
            height, width = self.grid
            shape = (batch, height, width, types, windows, parents)
            table = torch.full(shape, -torch.inf, dtype=logits.dtype)
            by_window = logits.reshape(batch, windows, self.size, self.size, types, parents)
            for index, (y, z) in enumerate(self.corners()):
                table[:, y : y + self.size, z : z + self.size, :, index] = by_window[:, index]
            # A capsule that no window sees has no parent, and its shares are not read.
            shares = torch.softmax(table.flatten(4), dim=4).reshape(shape)
            cut = [
                shares[:, y : y + self.size, z : z + self.size, :, index]
                for index, (y, z) in enumerate(self.corners())
            ]
            return torch.stack(cut, dim=1).reshape(logits.shape)

        return softmax
