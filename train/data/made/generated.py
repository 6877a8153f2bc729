"""Examples that are made where they are needed, from stored images and a number."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from train.data.dataset import Batch, Examples, digest
from train.system.errors import UserError

_LEAST = 64
"""Examples that are made at once on the host."""


@dataclass(frozen=True, eq=False)
class GeneratedSplit(Examples):
    """Several examples of each stored image, none of which is stored.

    Example `i + n * j` is the `j`-th of stored image `i` of `n`, a fixed function of the seed, `i`
    and `j`: the same on every device, in every process and in every feed. A subclass makes it
    (`make`), in the form that is traced.

    Raises:
        UserError: if there are more examples than int32 can number.
    """

    source: Examples  # the stored images
    versions: int  # examples of each
    seed: int  # decides the examples
    count: int | None = None  # examples there are, the first of `versions * n`; all if None

    def __post_init__(self) -> None:
        if self.versions * len(self.source) > np.iinfo(np.int32).max:
            raise UserError(
                f"{self.versions} examples of each of {len(self.source)} images are more than can "
                "be numbered: start from fewer images."
            )

    @abc.abstractmethod
    def make(self, constants: Mapping[str, jax.Array], image: jax.Array, key: jax.Array) -> Batch:
        """Makes one example without a leading axis: a pure function, to be traced.

        The constants are on the device, `image` is the int32 number of the stored image, and the
        key is the example's own.
        """

    def __len__(self) -> int:
        return self.versions * len(self.source) if self.count is None else self.count

    @property
    def source_labels(self) -> np.ndarray:
        return self.source.source_labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = jax.eval_shape(
            lambda constants: self.make(constants, jnp.int32(0), jax.random.key(0)).images,
            self.constants,
        ).shape
        return height, width, channels

    @property
    def constants(self) -> dict[str, np.ndarray]:
        return self.source.constants

    @functools.cached_property
    def fingerprint(self) -> str:
        of = (type(self).__qualname__, self.versions, self.seed, self.source.fingerprint)
        return digest(*map(str, of))

    def subset(self, count: int) -> Self:
        """Takes the first, of images that are in the order of their files."""
        return dataclasses.replace(self, count=count)

    def take(self, images: np.ndarray) -> Self:
        return dataclasses.replace(self, source=self.source.take(images))

    def select(self, constants: Mapping[str, jax.Array], indices: jax.Array) -> Batch:
        # The generator is named: a setting of the user's must not change a data set.
        seed = jax.random.key(self.seed, impl="threefry2x32")
        images, versions = indices % len(self.source), indices // len(self.source)

        def one(image: jax.Array, version: jax.Array) -> Batch:
            key = jax.random.fold_in(jax.random.fold_in(seed, image), version)
            return self.make(constants, image, key)

        return jax.vmap(one)(images, versions)

    def gather(self, indices: np.ndarray) -> Batch:
        """Makes examples on a CPU, so that no accelerator is waited for, which may be busy."""
        # Rounded up, so that few programs are compiled for many lengths.
        room = max(_LEAST, 1 << (len(indices) - 1).bit_length())
        padded = np.zeros(room, np.int32)
        padded[: len(indices)] = indices
        with jax.default_device(_processor()):
            made = jax.device_get(self._select(self._on_processor, padded))
        return jax.tree.map(lambda array: array[: len(indices)], made)

    @functools.cached_property
    def _on_processor(self) -> dict[str, jax.Array]:
        return jax.device_put(self.constants, _processor())

    @functools.cached_property
    def _select(self) -> Callable[..., Batch]:
        return jax.jit(self.select)

    def __getstate__(self) -> dict:
        """The fields alone: another process compiles for itself what is compiled here."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def _processor() -> jax.Device:
    """A CPU, or any device where the user leaves JAX no CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
