"""Votes: what a pose is multiplied with, and how."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from capsjax import _checks
from capsjax.routing import dense_votes

Transform = Literal["linear", "matrix"]
TRANSFORMS: tuple[Transform, ...] = ("linear", "matrix")


def kernel_shape(transform: Transform, in_dim: int, out_dim: int) -> tuple[int, int]:
    """The shape of the matrix between two capsules.

    Args:
        transform: see `make_votes`.
        in_dim: dimension of the pose below, `K`.
        out_dim: dimension of the pose above, `D`.

    Raises:
        ValueError: there is no such transform, or these are no dimensions of square matrices.
    """
    _checks.one_of("transform", transform, TRANSFORMS)
    if transform == "linear":
        return out_dim, in_dim
    side = math.isqrt(in_dim)
    if side * side != in_dim or out_dim != in_dim:
        raise ValueError(
            "transform='matrix' needs poses that are square matrices, of the same size below and "
            f"above, such as 16 numbers for 4x4, not {in_dim} and {out_dim}"
        )
    return side, side


def make_votes(transform: Transform, kernel: jax.Array, pose: jax.Array) -> jax.Array:
    """The votes of capsules for those above them.

    Args:
        transform: `"linear"`, `u_hat_ij = W_ij u_i` with `W_ij` `[D, K]` (Sabour, Frosst and Hinton
            2017, arXiv:1710.09829, equation 2); or `"matrix"`, `V_ij = M_i W_ij`, in which a pose
            is a matrix `M_i`, row-major, and `W_ij` another one of its size (Hinton, Sabour and
            Frosst 2018, section 2).
        kernel: `[I, J, D, K]` or `[I, J, side, side]`.
        pose: `[..., I, K]`, in the same dtype.

    Returns:
        `[..., I, J, D]` in that dtype.
    """
    *leading, n_in, in_dim = pose.shape
    flat = pose.reshape(-1, n_in, in_dim)
    if transform == "linear":
        votes = dense_votes(kernel, flat)
    else:
        side = kernel.shape[-1]
        matrices = flat.reshape(-1, n_in, side, side)
        votes = jnp.einsum("bimn,ijnl->bijml", matrices, kernel)
    return votes.reshape(*leading, n_in, kernel.shape[1], -1)
