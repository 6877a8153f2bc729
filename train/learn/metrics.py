"""Metrics as sums and counts, so that batches, devices and processes merge exactly."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Mean(NamedTuple):
    """A mean that is not divided yet: `total` over `examples`, scalars or an entry a step.

    Its `lax.psum` is that over the examples of all devices.
    """

    total: jax.Array
    examples: jax.Array


def masked_mean(values: jax.Array, mask: jax.Array | None = None) -> Mean:
    """Sums per-example values `[batch]`, those where `mask [batch]` is 0 left out."""
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    if mask is None:
        return Mean(jnp.sum(values), jnp.asarray(values.size, jnp.int32))
    kept = mask > 0
    return Mean(jnp.sum(jnp.where(kept, values, 0)), jnp.sum(kept, dtype=jnp.int32))


def merge(metrics: Iterable[Mapping[str, Mean]]) -> dict[str, float]:
    """The values of metrics over many steps: fetches them from the device and divides once.

    The result does not depend on how the steps are cut into items: it is the exactly rounded sum.
    """
    fetched = jax.device_get(list(metrics))
    names = fetched[0].keys() if fetched else ()
    values = {}
    for name in names:
        total = math.fsum(value for m in fetched for value in np.ravel(m[name].total))
        examples = sum(int(np.sum(m[name].examples, dtype=np.int64)) for m in fetched)
        values[name] = total / examples if examples else float("nan")
    return values
