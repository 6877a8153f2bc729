"""The feed for sets that fit on the device: the whole split lives there, a step sends indices."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data.dataset import Split
from train.data.order import WHOLE, Order


class ResidentFeed:
    """Holds a training split on every device of a mesh, as uint8, and gathers batches there.

    Args:
        split: the training split.
        batch_size: the global batch, B.
        seed: chooses the order of the examples.
        mesh: the devices; each gets a full copy.
        part: the examples of each batch, b of them, that this process brings in.

    Attributes:
        constants: `images` uint8 [n, height, width, channels] and `labels` int32 [n], replicated.
        batch_bytes: size of a step's indices.

    Raises:
        UserError: if the batch is larger than the split.
    """

    def __init__(
        self, split: Split, *, batch_size: int, seed: int, mesh: Mesh, part: slice = WHOLE
    ) -> None:
        self._order = Order(len(split), batch_size=batch_size, seed=seed)
        self._part = part
        self.constants: dict[str, jax.Array] = jax.device_put(
            {"images": split.images, "labels": split.labels},
            NamedSharding(mesh.local_mesh, PartitionSpec()),
        )
        self.batch_bytes = batch_size * np.dtype(np.int32).itemsize

    def batches(self, start_step: int, stop_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields `{"indices": int32 [b]}` for each step from `start_step` to before `stop_step`."""
        for step in range(start_step, stop_step):
            yield {"indices": self._order.indices(step)[self._part]}

    @staticmethod
    def select(
        constants: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Gathers images uint8 [b, height, width, channels] and labels int32 [b]."""
        indices = batch["indices"]
        return (
            constants["images"].at[indices].get(mode="promise_in_bounds"),
            constants["labels"].at[indices].get(mode="promise_in_bounds"),
        )
