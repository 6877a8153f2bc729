"""What an environment that JAX or Python cannot work in has them raise, as one sentence."""

import errno
import os
import re
import resource
from collections.abc import Callable

from train.system.errors import UserError, first_line

LEAST_ADDRESSES = 2_500_000_000
"""Bytes. With 1.8 GB the compiler of a CPU never ends, with 0.8 GB the import is aborted."""

_ABOUT_DEVICES = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES", "XLA_FLAGS")

_NO_MEMORY = (
    "there is not enough memory, or too few threads are allowed ({}): end other programs, raise "
    "the limit (ulimit -v, -u), or choose a smaller network or --batch-size."
)

_KNOWN: tuple[tuple[str, Callable[[re.Match], str]], ...] = (
    (
        r"Unable to initialize backend '(\w+)': (.*?)(?: \(set JAX_PLATFORMS.*)?$",
        lambda found: (
            f"JAX cannot use the backend {found[1]} here ({found[2].rstrip('.')}), with "
            f"{_set_variables()} in the environment: correct or unset what is wrong there."
        ),
    ),
    (
        r"invalid truth value (\S*) for environment (\S*)|Invalid value (.*) for JAX flag (\w+)",
        lambda found: (
            f"the environment variable {(found[2] or found[4]).strip(chr(39)).upper()} is "
            f"{found[1] or found[3]}, which JAX does not take: correct or unset it."
        ),
    ),
    (
        r"Invalid value \(\S+\) encountered",
        lambda _: (
            "a number is not finite, and JAX_DEBUG_NANS or JAX_DEBUG_INFS ends a program there: "
            "unset it to go on, as fit leaves such updates out by itself."
        ),
    ),
    (
        r"failed to map segment.*|initializing the extension|can't start new thread"
        r"|(?i:cannot allocate memory|out of memory|RESOURCE_EXHAUSTED)",
        lambda found: _NO_MEMORY.format(found[0][:160]),
    ),
)


def require_environment() -> None:
    """Refuses, before JAX is imported, what these programs are known not to work with.

    Raises:
        UserError: if this process may have too few addresses, with which JAX hangs or is aborted,
            or JAX is told to compile nothing, without which devices share no work.
    """
    if os.environ.get("JAX_DISABLE_JIT", "").lower() in ("y", "yes", "t", "true", "on", "1"):
        raise UserError("JAX_DISABLE_JIT is set, but networks have to be compiled: unset it.")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        raise UserError(
            f"this process is limited to {limit / 1e9:.1f} GB of addresses, but JAX needs "
            f"{LEAST_ADDRESSES / 1e9:.1f} GB to begin with: raise the limit (ulimit -v unlimited)."
        )


def explained(error: Exception) -> str | None:
    """What is wrong with the environment or a file's name, if an error comes of that."""
    if isinstance(error, MemoryError):
        return _NO_MEMORY.format(first_line(error))
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{str(error.filename)[:40]}... is too long for the name of a file."
    for pattern, sentence in _KNOWN:
        if found := re.search(pattern, first_line(error)):
            return sentence(found)
    return None


def _set_variables() -> str:
    found = [f"{name}={os.environ[name]}" for name in _ABOUT_DEVICES if name in os.environ]
    return ", ".join(found) or f"none of {', '.join(_ABOUT_DEVICES)}"
