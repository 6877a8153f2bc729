"""The folder of compiled programs, so that only the first run waits for the compiler."""

import os
import sys
import tempfile
from pathlib import Path

import jax

VARIABLE = "JAX_COMPILATION_CACHE_DIR"

LIMIT = 2**30
"""Bytes that the folder may hold; what was written first goes first."""


def keep_compiled_programs() -> Path | None:
    """Switches JAX's persistent compilation cache on; for programs, never for the library.

    The folder is `capsjax/xla` in the user's cache folder (`$XDG_CACHE_HOME`, or `~/.cache`), or
    what `$JAX_COMPILATION_CACHE_DIR` names; where that is empty, nothing is kept. Where a
    folder cannot be written, there is a note on stderr, and the program goes on without one.

    Returns:
        The folder; None where nothing is kept.
    """
    folder = _folder()
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            if VARIABLE not in os.environ:
                _prune(folder, LIMIT)
        except OSError as error:
            print(
                f"note: compiled programs are not kept, {folder} cannot be written "
                f"({error.strerror}); {VARIABLE} names another folder.",
                file=sys.stderr,
            )
            folder = None
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    # JAX would keep what takes a second to compile; here, much takes less and adds up to several.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def _folder() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # others are to be ignored (XDG specification)
        try:
            caches = str(Path.home() / ".cache")
        except RuntimeError:  # no home
            return None
    return Path(caches) / "capsjax" / "xla"


def _prune(folder: Path, limit: int) -> None:
    """Deletes the oldest files until the others take no more than `limit` bytes."""
    files = [(path.stat(), path) for path in folder.iterdir() if path.is_file()]
    size = sum(stat.st_size for stat, _ in files)
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
        if size <= limit:
            return
        path.unlink(missing_ok=True)
        size -= stat.st_size
