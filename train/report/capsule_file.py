"""An `.npz` file of arrays that grow row by row, and are never in memory as a whole."""

import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO

import jax.numpy as jnp
import numpy as np

from train.system.files import staged


class CapsuleFile(AbstractContextManager["CapsuleFile"]):
    """Collects arrays with a row for each image, for `np.load`; nothing is left if it is not kept.

    Raises:
        OSError: where the folder of the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0
        self._images: list[str] = []
        self._rows: dict[str, tuple[IO[bytes], np.ndarray]] = {}  # and an array of no rows
        self._open = ExitStack()

    def add(self, images: Sequence[Path], arrays: Mapping[str, np.ndarray]) -> None:
        """Adds rows, one of each array for each image; there are the same arrays each time."""
        self._images += map(str, images)
        for name, array in arrays.items():
            if array.dtype == jnp.bfloat16:  # which `np.load` has no name for
                array = array.astype(np.float32)
            if name not in self._rows:
                beside = tempfile.TemporaryFile(dir=self._path.absolute().parent)  # noqa: SIM115
                self._rows[name] = (self._open.enter_context(beside), array[:0])
            self._rows[name][0].write(np.ascontiguousarray(array).data)

    def keep(self, classes: Sequence[str]) -> None:
        """Writes the file, whole or not at all: also the names of `images` and `classes`."""
        named = {"images": self._images, "classes": classes}
        with staged(self._path) as file, zipfile.ZipFile(file, "w") as archive:
            for name, texts in named.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(texts, np.str_), allow_pickle=False)
            for name, (rows, none) in self._rows.items():
                header = np.lib.format.header_data_from_array_1_0(none)
                header["shape"] = (len(self._images), *none.shape[1:])
                rows.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_2_0(entry, header)
                    shutil.copyfileobj(rows, entry, 2**20)

    def __exit__(self, *_: object) -> None:
        self._open.close()
