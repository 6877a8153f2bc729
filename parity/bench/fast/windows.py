"""Windows of a capsule convolution: each offset in them is one slice of the grid.

Names of sizes: B examples, L windows, I = (y, x, types) capsules in a window, J parents. Capsules
are numbered as in `parity.reference.windows`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from parity.reference.windows import Windows


def cut(windows: Windows, x: Tensor) -> Tensor:
    """`[B, H, W, types, ...]` -> `[I, B, rows, columns, ...]`, the capsules of each window."""
    (rows, columns), s, size = windows.counts, windows.stride, windows.size
    slices = [
        x[:, y : y + s * (rows - 1) + 1 : s, z : z + s * (columns - 1) + 1 : s]
        for y in range(size)
        for z in range(size)
    ]
    return torch.stack(slices).movedim(4, 1).flatten(0, 1)


def matrix_votes(pose: Tensor, matrices: Tensor) -> Tensor:
    """Poses `[I, N, D]` times matrices `[I, J, side, side]` -> votes `[N, J, I, D]`."""
    I, J, side, _ = matrices.shape  # noqa: E741
    rows = pose.unflatten(2, (side, side)).flatten(1, 2)  # [I, N side, side]
    votes = torch.bmm(rows, matrices.transpose(1, 2).reshape(I, side, J * side))
    return votes.reshape(I, -1, side, J, side).permute(1, 3, 0, 2, 4).flatten(3)


def class_votes(pose: Tensor, matrices: Tensor) -> Tensor:
    """Poses `[B, rows, columns, types, D]` -> votes `[B, classes, I, D]`, with places added.

    As `parity.reference.windows.class_votes`; all positions share matrices `[types, J, side,
    side]`.
    """
    batch, rows, columns = pose.shape[:3]
    side = math.isqrt(pose.shape[4])
    votes = matrix_votes(pose.movedim(3, 0).flatten(1, 3), matrices)  # [B positions, J, types, D]
    votes = votes.unflatten(0, (batch, rows, columns))
    places = torch.zeros(rows, columns, side, side, dtype=pose.dtype, device=pose.device)
    step = torch.arange(0.5, max(rows, columns), dtype=pose.dtype, device=pose.device)
    places[:, :, 0, -1] = step[:rows, None] / rows
    places[:, :, 1, -1] = step[None, :columns] / columns
    votes = votes + places.flatten(2)[:, :, None, None]
    return votes.permute(0, 3, 1, 2, 4, 5).flatten(2, 4)


def over_all_parents(windows: Windows, logits: Tensor) -> Tensor:
    """A softmax of logits `[B L, J, I]` over the `J` parents in all windows that see a capsule.

    The sum over the parents in a window is taken before windows are added up on the grid.
    """
    (height, width), count = windows.grid, windows.counts[0] * windows.counts[1]
    types = logits.shape[2] // windows.size**2

    def to_columns(x: Tensor) -> Tensor:  # [B L, I] -> [B, types size size, L]
        by_type = x.reshape(-1, count, windows.size**2, types)
        return by_type.permute(0, 3, 2, 1).reshape(-1, types * windows.size**2, count)

    def to_windows(grid: Tensor) -> Tensor:  # [B, types, H, W] -> [B L, 1, I]
        columns = functional.unfold(grid, windows.size, stride=windows.stride)
        by_type = columns.reshape(-1, types, windows.size**2, count)
        return by_type.permute(0, 3, 2, 1).reshape(-1, 1, logits.shape[2])

    top = to_windows(_largest(windows, logits.detach().amax(dim=1), types))
    share = torch.exp(logits - top)
    total = functional.fold(
        to_columns(share.sum(dim=1)), (height, width), windows.size, stride=windows.stride
    )
    return share / to_windows(total)


def _largest(windows: Windows, x: Tensor, types: int) -> Tensor:
    """`[B L, I]` -> `[B, types, H, W]`, the largest of all windows that see a capsule."""
    (rows, columns), s, size = windows.counts, windows.stride, windows.size
    by_offset = x.reshape(-1, rows, columns, size, size, types).permute(3, 4, 0, 5, 1, 2)
    grid = x.new_full((by_offset.shape[2], types, *windows.grid), -torch.inf)
    for y in range(size):
        for z in range(size):
            seen = grid[..., y : y + s * (rows - 1) + 1 : s, z : z + s * (columns - 1) + 1 : s]
            seen.copy_(torch.maximum(seen, by_offset[y, z]))
    return grid
