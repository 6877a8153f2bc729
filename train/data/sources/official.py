"""Official files of a data set: where they are published, how to know them."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from train.data.dataset import Dataset
from train.system.errors import UserError


@dataclass(frozen=True)
class Fingerprint:
    """Size in bytes and SHA-256 (hexadecimal) of an official file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class OfficialFile:
    """A file as its publisher gives it out.

    Attributes:
        name: its name.
        url: where it is published.
        content: what it holds, such as "the training images of smallnorb".
        fingerprint: how to know it.
        unpacked: what it is called when it has been unpacked, a file or a folder; None where it is
            not packed.
    """

    name: str
    url: str
    content: str
    fingerprint: Fingerprint
    unpacked: str | None = None

    def find(self, folder: Path) -> Path:
        """Finds the file, verified, or what was unpacked from it.

        No checksums of unpacked files are published: whoever reads them has to see that they are
        whole.

        Raises:
            UserError: if neither is there, or the file cannot be read or is another one.
        """
        path = folder / self.name
        if self.unpacked is not None and not path.exists():
            unpacked = folder / self.unpacked
            if unpacked.exists():
                return unpacked
        self.verify(path)
        return path

    def verify(self, path: Path) -> None:
        """Demands that a file is this one.

        Raises:
            UserError: if it is missing, cannot be read or is another one.
        """
        official = self.fingerprint
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
        except FileNotFoundError as error:
            unpacked = f", or {self.unpacked}, unpacked from it" if self.unpacked else ""
            raise UserError(
                f"{path} does not exist: the data folder must hold {self.content} there "
                f"({official.size} bytes), as published at {self.url}{unpacked}."
            ) from error
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): it should be {self.content}, a file of "
                f"{official.size} bytes; check its permissions."
            ) from error
        if Fingerprint(size, sha256) != official:
            raise UserError(
                f"{path} is not the official file: it has {size} bytes and SHA-256 {sha256}, "
                f"expected {official.size} bytes and {official.sha256}; get it again from "
                f"{self.url}."
            )


class Source(Protocol):
    """A data set that is read from its official files as they are.

    Attributes:
        name: what `load_dataset` calls it.
        tfds_name: what tensorflow-datasets calls it, whose downloads are shared.
        image_shape: `(height, width, channels)` of its images.
        class_names: one readable name per class.
        files: the files that it is read from.
    """

    @property
    def name(self) -> str: ...
    @property
    def tfds_name(self) -> str: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def files(self) -> tuple[OfficialFile, ...]: ...

    def read(self, paths: Mapping[str, Path]) -> Dataset:
        """Reads the set.

        Args:
            paths: for the name of each of `files`, where it or what was unpacked from it is.

        Raises:
            UserError: if a file is damaged, or they do not fit each other.
        """
        ...


def find(files: Iterable[OfficialFile], data_dir: str | Path) -> dict[str, Path]:
    """Finds official files in a folder; see `OfficialFile.find`.

    Returns:
        The path of each by its name.
    """
    return {file.name: file.find(Path(data_dir)) for file in files}


def cache_folder(named: str | Path | None = None) -> Path:
    """Where tensorflow-datasets keeps what it has prepared and downloaded.

    Args:
        named: the folder; by default the environment variable `TFDS_DATA_DIR` names it, else it is
            `~/tensorflow_datasets`.
    """
    named = named or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(named).expanduser()
