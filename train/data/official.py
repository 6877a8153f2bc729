"""Published data sets: their official files, checksums, licence, shape and classes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from train.data.dataset import Dataset, Split
from train.system.errors import UserError


class OtherFileError(UserError):
    """A file is not the official one, but perhaps one of another set: it has that checksum."""

    def __init__(self, message: str, path: Path, checksum: str | None) -> None:
        super().__init__(message)
        self.path, self.checksum = path, checksum


@dataclass(frozen=True)
class OfficialFile:
    """A file of a publisher."""

    name: str
    url: str  # where it is published
    content: str  # what it holds, such as "the training images of smallNORB"
    size: int | None = None  # in bytes; None where it is not known here
    checksum: str | None = None  # its SHA-256 or MD5, hexadecimal; None where neither is known
    unpacked: str | None = None  # the file or folder that it unpacks to, if it is packed
    other: "OfficialFile | None" = None  # the same content in another form, which serves as well

    def is_in(self, folder: Path) -> bool:
        """Whether the file, or what was unpacked from it, is in a folder."""
        return any((folder / name).exists() for name in (self.name, self.unpacked) if name)

    def find(self, folder: Path) -> Path:
        """Finds the file in a folder and verifies it, or finds what was unpacked from it.

        No checksums of unpacked files are published, nor of a few others: whoever reads them checks
        that they are whole.

        Raises:
            UserError: if neither is there, or the file cannot be read or is another one.
        """
        if self.other and not self.is_in(folder) and self.other.is_in(folder):
            return self.other.find(folder)
        path = folder / self.name
        if self.unpacked and not path.exists() and (folder / self.unpacked).exists():
            return folder / self.unpacked
        return self.verify(path)

    def verify(self, path: Path) -> Path:
        """Returns the path of the file if that is the official one, as far as this is known.

        Raises:
            UserError: if it cannot be read or is another one.
        """
        of_bytes = "" if self.size is None else f" of {self.size} bytes"
        try:
            size, found = path.stat().st_size, self._checksum(path)
        except FileNotFoundError as error:
            unpacked = f", or {self.unpacked}, unpacked from it" if self.unpacked else ""
            other = f", or {self.other.name}" if self.other else ""
            raise UserError(
                f"{path} does not exist: the data folder must hold {self.content} there, a file"
                f"{of_bytes} as published at {self.url}{unpacked}{other}."
            ) from error
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): it should be {self.content}, a file"
                f"{of_bytes}; check its permissions."
            ) from error
        if found != self.checksum or size != (self.size or size):
            raise OtherFileError(
                f"{path} is not the official file: it has {size} bytes and the checksum {found}, "
                f"expected one{of_bytes} and {self.checksum}; get it again from {self.url}.",
                path,
                found,
            )
        return path

    def _checksum(self, path: Path) -> str | None:
        """What `checksum` should be of a file."""
        with path.open("rb") as file:
            if self.checksum is None:
                return None
            # Against damage, not against an attacker.
            kind = "sha256" if len(self.checksum) == 64 else "md5"
            return hashlib.file_digest(
                file, lambda: hashlib.new(kind, usedforsecurity=False)
            ).hexdigest()


@dataclass(frozen=True)
class Source:
    """A data set that is read from official files, and facts that are known without them.

    `read` makes the training and the test split of the paths of the files, or of what was unpacked
    from them, and raises UserError for one that is not sound. Where `is_prepared`,
    tensorflow-datasets' cache keeps the examples in the form of stock tensorflow-datasets, and not
    the official files.
    """

    name: str  # what `load_dataset` calls it
    files: tuple[OfficialFile, ...]
    read: Callable[..., tuple[Split, Split]]
    image_shape: tuple[int, int, int]  # height, width, channels
    class_names: tuple[str, ...]  # one readable name per class
    licence: str = "not stated"  # as the publisher states it
    tfds: str | None = None  # what tensorflow-datasets calls it, where that is another name
    is_prepared: bool = False

    @property
    def tfds_name(self) -> str:
        """Name in tensorflow-datasets; sets of the same name have the same files."""
        return self.tfds or self.name

    def find(self, folder: str | Path) -> list[Path]:
        """Finds the official files in a folder; see `OfficialFile.find`."""
        return [file.find(Path(folder)) for file in self.files]

    def load(self, paths: Sequence[str | Path]) -> Dataset:
        """Reads the set from where each of `files`, or what was unpacked from it, is.

        Raises:
            UserError: if a file is damaged, or they do not fit each other.
        """
        train, test = self.read(*map(Path, paths))
        return Dataset(self.name, train, test, self.class_names)
