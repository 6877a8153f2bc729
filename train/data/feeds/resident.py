"""The feed for sets that fit on the device: all data live there, a step sends indices."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data.dataset import Batch, Examples
from train.data.feeds.order import WHOLE, Order


class ResidentFeed:
    """Holds a training split on every device of a mesh, and gathers or makes batches there.

    The arguments are those of `make_feed`; a step sends its indices alone.
    """

    def __init__(
        self, split: Examples, *, batch_size: int, seed: int, mesh: Mesh, part: slice = WHOLE
    ) -> None:
        self._split = split
        self._order = Order.of(split, batch_size=batch_size, seed=seed)
        self._part = part
        self.constants: dict[str, jax.Array] = jax.device_put(
            split.constants, NamedSharding(mesh.local_mesh, PartitionSpec())
        )
        self.batch_bytes = batch_size * np.dtype(np.int32).itemsize

    def batches(self, start_step: int, stop_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields `{"indices": int32 [b]}` for each step from `start_step` to before `stop_step`."""
        for step in range(start_step, stop_step):
            yield {"indices": self._order.indices(step)[self._part]}

    def select(self, constants: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> Batch:
        """Takes the examples of these indices."""
        return self._split.select(constants, batch["indices"])
