"""The feed for sets that fit on the device, what all feeds do, and the choice between them."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data.dataset import Batch, Examples
from train.data.feeds.order import Order
from train.data.feeds.streaming import StreamingFeed
from train.data.on_disk import OnDisk
from train.distributed import processes
from train.system.errors import UserError
from train.system.machine import available_cores, physical_bytes

FeedKind = Literal["auto", "resident", "streaming"]

RESIDENT_FRACTION = 0.25
"""Share of an accelerator's free memory that a resident training split may take.

The rest is for the network, whose activations grow with the batch and are not known here.
"""

_MOST_WORKERS = 16

RESIDENT_CPU_BYTES = 2**30
"""Bytes that a resident split may take on a CPU, the copies of all virtual devices together."""


class ResidentFeed:
    """Holds a training split on every device of a mesh, and gathers or makes batches there.

    Of each batch of an order of the split this process brings in what its own devices of the mesh
    take; a step sends its indices alone.
    """

    def __init__(self, split: Examples, order: Order, mesh: Mesh) -> None:
        self._split, self._order = split, order
        self._part = processes.own_part(order.batch_size, mesh)
        self.constants: dict[str, jax.Array] = jax.device_put(
            split.constants, NamedSharding(mesh.local_mesh, PartitionSpec())
        )
        self.example = {"indices": jax.ShapeDtypeStruct((), np.int32)}
        self.batch_bytes = order.batch_size * np.dtype(np.int32).itemsize

    def batches(self, start_step: int, stop_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields `{"indices": int32 [b]}` for each step from `start_step` to before `stop_step`."""
        for step in range(start_step, stop_step):
            yield {"indices": self._order.indices(step)[self._part]}

    def select(self, constants: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> Batch:
        """Takes the examples of these indices."""
        return self._split.select(constants, batch["indices"])


Feed: TypeAlias = ResidentFeed | StreamingFeed
"""Gives the training step its examples; every feed gives the same ones for the same seed.

It yields `batches` on the host, whose leading axis is this process's part of the global batch, and
a step calls `select(constants, batch)` on each device, with that device's slice of the batch:
`constants` are arrays replicated over the devices, the same for every step. `example` has the
shapes of what a batch has of each example, and `batch_bytes` is the size of what a step sends from
all processes together.
"""


def make_feed(
    split: Examples,
    *,
    batch_size: int,
    seed: int,
    kind: FeedKind = "auto",
    mesh: Mesh,
) -> Feed:
    """Makes a feed for a training split.

    The batch is the global one, in the order that the seed chooses, over all devices of the mesh in
    all processes. "resident" holds the split on the devices, "streaming" sends each batch from the
    host, "auto" is resident where the split fits in every process (`RESIDENT_FRACTION` of the free
    memory of the fullest device, `RESIDENT_CPU_BYTES` on a CPU).

    Raises:
        UserError: if the batch is larger than the split, or "resident" is asked for and the split
            does not fit.
    """
    order = Order.of(split, batch_size=batch_size, seed=seed)
    if is_resident(split, kind, mesh):
        return ResidentFeed(split.in_memory(), order, mesh)
    return StreamingFeed(split, order, mesh, workers=_workers(split))


def is_resident(split: Examples, kind: FeedKind, mesh: Mesh) -> bool:
    """Whether `make_feed` makes a resident feed.

    Raises:
        UserError: if that is asked for and the split does not fit.
    """
    needed = split.nbytes
    room = min(_room_per_device(mesh), physical_bytes() // 2)
    too_large = processes.any_process(needed > room)
    if kind == "resident" and too_large:
        raise UserError(
            f"the training split takes {needed} bytes on each device, more than the {room} bytes "
            "that a resident feed may take there: use the streaming feed."
        )
    return kind != "streaming" and not too_large


def _workers(split: Examples) -> int:
    """Processes that read files; two cores are busy with the step and what surrounds it."""
    if not isinstance(split, OnDisk):
        return 0
    return max(0, min(_MOST_WORKERS, available_cores() - 2))


def _room_per_device(mesh: Mesh) -> int:
    """Bytes that a resident split may take on each of this process's devices."""
    devices = mesh.local_devices

    def room_on(device: Any) -> int:
        statistics = device.memory_stats()
        if not statistics or "bytes_limit" not in statistics:
            return RESIDENT_CPU_BYTES // len(devices)
        return int(RESIDENT_FRACTION * (statistics["bytes_limit"] - statistics["bytes_in_use"]))

    return min(map(room_on, devices))
