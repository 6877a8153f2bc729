"""Batch normalisation of capsules."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Capsules, accumulation_dtype
from capsjax.layers.normalization import BatchNorm


class CapsuleNorm(nnx.Module):
    """Batch normalisation of capsules: of their poses, and of activations before a sigmoid.

    Hahn, Pyeon and Kim 2019 normalise each element of the poses of a type, Ribeiro, Leontidis and
    Kollias 2020 all elements of a type together; both so normalise what activations are the
    sigmoids of. The constants are those of PyTorch.

    Args:
        types: number of capsule types, or of capsules where there is no grid.
        dim: dimension of a pose.
        over: what has a mean and a deviation of its own, each `"element"` of the poses of a type,
            or each `"type"`.
        affine: whether a learned scale and bias follow.
        logits: whether activations come as what they are the sigmoids of, and are normalised, too;
            if not, they are left as they are.
        batch_axis: name of the mapped axis over which a batch is spread, so that it is normalised
            as a whole; None where a batch is in one piece.
        dtype: dtype of the poses; everything is computed in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, or another argument has a wrong value.
    """

    def __init__(
        self,
        types: int,
        dim: int,
        *,
        over: Literal["element", "type"],
        affine: bool = True,
        logits: bool = False,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        types, dim = _checks.positive_integer("types", types), _checks.positive_integer("dim", dim)
        self.over = _checks.one_of("over", over, ("element", "type"))
        options: dict[str, Any] = {
            "momentum": 0.9,
            "epsilon": 1e-5,
            "affine": affine,
            "batch_axis": batch_axis,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.pose = BatchNorm(types if over == "type" else types * dim, dtype=dtype, **options)
        self.activation = nnx.data(
            BatchNorm(types, dtype=accumulation_dtype(dtype), **options)
            if _checks.boolean("logits", logits)
            else None
        )

    def __call__(self, capsules: Capsules) -> Capsules:
        """Poses `[batch, ..., types, dim]` and activations `[batch, ..., types]`, normalised."""
        pose, activation = capsules
        if self.over == "type":
            normal = self.pose(pose.swapaxes(-1, -2)).swapaxes(-1, -2)
        else:
            normal = self.pose(pose.reshape(*pose.shape[:-2], -1)).reshape(pose.shape)
        if self.activation is not None:
            activation = nnx.sigmoid(self.activation(activation))
        return Capsules(normal, activation)
