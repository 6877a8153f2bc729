"""The feed for sets that fit on the device: all they need lives there, a step sends indices."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data.dataset import Batch, Examples
from train.data.feeds.order import WHOLE, Order


class ResidentFeed:
    """Holds a training split on every device of a mesh, and gathers or makes batches there.

    Args:
        split: the training split.
        batch_size: the global batch, B.
        seed: chooses the order of the examples.
        mesh: the devices; each gets a full copy.
        part: the examples of each batch, b of them, that this process brings in.

    Attributes:
        constants: those of the split, replicated.
        batch_bytes: size of a step's indices.

    Raises:
        UserError: if the batch is larger than the split.
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
        """The examples of these indices."""
        return self._split.select(constants, batch["indices"])
