"""Parts that several fast networks have: normalised convolutions, squash, what is decoded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parity.reference._parts import Stages, class_mask


def squash(s: Tensor, dim: int = -1) -> Tensor:
    """Equation 1 of Sabour, Frosst and Hinton 2017 over an axis."""
    n = s.norm(dim=dim, keepdim=True)
    return s * (n / (1 + n**2))


def agree(u_hat: Tensor, iterations: int) -> Tensor:
    """Dynamic routing: votes `[B, J, I, D]` to capsules `[B, J, D]`."""
    v = squash(u_hat.sum(dim=2) / u_hat.shape[1])  # all coupling coefficients are equal
    b = torch.zeros((), device=v.device)
    for _ in range(1, iterations):
        b = b + torch.matmul(u_hat, v[..., None])  # [B, J, I, 1]
        c = torch.softmax(b, dim=1)
        v = squash(torch.matmul(c.transpose(2, 3), u_hat).squeeze(2))
    return v


def dense_votes(u: Tensor, matrices: Tensor) -> Tensor:
    """Poses `[B, I, K]` times matrices `[I, J, D, K]` -> votes `[B, J, I, D]`, in one product."""
    J, D = matrices.shape[1:3]
    u_hat = torch.bmm(u.transpose(0, 1), matrices.flatten(1, 2).transpose(1, 2))  # [I, B, J D]
    return u_hat.unflatten(2, (J, D)).permute(1, 2, 0, 3)


def decoded(v: Tensor, labels: Tensor | None, decode: Callable[[Tensor], Tensor]) -> Stages:
    """The result of a network whose class capsules are `[B, J, D]`, of which one is decoded."""
    lengths = v.norm(dim=-1)
    mask = class_mask(lengths, labels).to(v.dtype)
    return {"lengths": lengths, "reconstruction": decode(v * mask[:, :, None])}


def normalized(layer: Any, maps: Tensor) -> Tensor:
    """A `NormalizedConv`."""
    return layer.norm(layer.conv(maps))


def residual(block: Any, maps: Tensor) -> Tensor:
    """A `ResidualBlock`."""
    inside = functional.relu(normalized(block.first, maps), inplace=True)
    way = normalized(block.second, inside)
    if block.around is not None:
        around = normalized(block.around, maps)
    elif block.added:
        before, seen = block.added // 2, maps[:, :, :: block.stride, :: block.stride]
        around = functional.pad(seen, (0, 0, 0, 0, before, block.added - before))
    else:
        around = maps
    return functional.relu(way + around, inplace=True)
