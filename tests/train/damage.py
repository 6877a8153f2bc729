"""Ways in which the files of a checkpoint come to harm."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path


def delete(path: Path, _chance: random.Random) -> None:
    """Removes a file, or a folder with what is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def truncate(path: Path, chance: random.Random) -> None:
    """Cuts a file short, at any byte."""
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def empty(path: Path, _chance: random.Random) -> None:
    """Leaves nothing in a file."""
    path.write_bytes(b"")


def flip(path: Path, chance: random.Random) -> None:
    """Turns one bit of a file around."""
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def overwrite(path: Path, chance: random.Random) -> None:
    """Writes noise over a file."""
    path.write_bytes(chance.randbytes(path.stat().st_size))


Harm = Callable[[Path, random.Random], None]
TO_FILES: tuple[Harm, ...] = (delete, truncate, empty, flip, overwrite)


def harms(checkpoint: Path) -> list[tuple[Path, Harm]]:
    """Each file of a checkpoint with everything that may happen to it, and folders that go."""
    found: list[tuple[Path, Harm]] = []
    for path in sorted(checkpoint.rglob("*")):
        found += [(path, harm) for harm in (TO_FILES if path.is_file() else (delete,))]
    return found
