"""The form of a file of weights: tensors, and beside them what the network is."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from capsjax._version import __version__

KEY = "capsjax"
"""Under which a file's metadata have the description of the network, as JSON."""

FORMAT = 1
"""Of the description; it grows where an older version would misunderstand a newer file."""

FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""The dtypes of weights, as a file names them."""

LARGEST_SIDE = 2**15
"""Pixels, or channels; a damaged file may ask for more than any memory holds."""


class Contents(NamedTuple):
    """What a file of weights holds.

    Attributes:
        model: name of the network, as of `create_model`.
        image_shape: `(height, width, channels)` of the images that it was trained on.
        class_names: one a class.
        options: of `create_model`, by name, as JSON has them; without the routing.
        routing: name and options of the routing, None for a network without.
        preprocessing: the fields of a `Preprocessing`.
        tensors: the network's variables by name; on the default device.
        written_by: version of capsjax that wrote it.
        labels_per_image: classes that an image shows; None for any number of them.
    """

    model: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    options: dict[str, Any]
    routing: tuple[str, dict[str, Any]] | None
    preprocessing: dict[str, Any]
    tensors: Mapping[str, Any]
    written_by: str = __version__
    labels_per_image: int | None = 1


def write_weights(path: str | os.PathLike, contents: Contents) -> None:
    """Writes a file of weights, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    described = contents._replace(tensors={}, written_by=__version__)._asdict()
    text = json.dumps({"format": FORMAT, **described}, allow_nan=False)
    arrays = {name: np.ascontiguousarray(value) for name, value in contents.tensors.items()}
    path = Path(path)
    # Beside it, where it can be renamed; under a name that no other process takes.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        try:
            file.write(save(arrays, {KEY: text}))
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_weights(path: str | os.PathLike) -> Contents:
    """Reads a file of weights; nothing of it is ever run.

    Raises:
        ValueError: there is no such file, it is damaged, was not written by `capsjax.save`, or by a
            newer version, or it has float64 numbers and JAX's x64 mode is off.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: name one that capsjax.save has written")
    try:
        with safe_open(path, framework="flax") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise ValueError(
                    f"{path} holds tensors, but not which network they are of: give a file that "
                    "capsjax.save or `python -m train export` has written"
                )
            contents = _contents(path, text)
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                dtype = FLOATS.get(kind := file.get_slice(name).get_dtype())
                if dtype is None:
                    raise ValueError(f"{path} is damaged: its tensor {name} is of dtype {kind}")
                if dtype == "float64" and not jax.config.read("jax_enable_x64"):
                    raise ValueError(
                        f"{path} holds float64 numbers, which need JAX's x64 mode: set "
                        "JAX_ENABLE_X64=1, or write it with dtype='float32'"
                    )
                contents.tensors[name] = file.get_tensor(name)  # type: ignore[index]
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}): write it anew"
        ) from error
    return contents


def _contents(path: Path, text: str) -> Contents:
    """What a file says of its network, without the tensors."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    match values:
        case {"format": int(number), **rest} if number > FORMAT:
            raise ValueError(
                f"{path} was written by a newer version, capsjax {rest.get('written_by')}, and "
                f"this is {__version__}: upgrade capsjax"
            )
        case {
            "format": int(),
            "model": str(model),
            "image_shape": [int(height), int(width), int(channels)],
            "class_names": [_, *_] as names,
            "options": dict(options),
            "routing": None | [str(), dict()] as routing,
            "preprocessing": dict(preprocessing),
            "written_by": str(version),
        } if all(isinstance(name, str) for name in names) and all(
            0 < side <= LARGEST_SIDE for side in (height, width, channels)
        ):
            shape, several = (height, width, channels), values.get("labels_per_image", 1)
            if several is not None and (type(several) is not int or not 0 < several <= len(names)):
                raise ValueError(f"{path} is damaged: it tells {several!r} classes of an image")
            return Contents(
                model,
                shape,
                tuple(names),
                options,
                routing and (routing[0], routing[1]),
                preprocessing,
                {},
                version,
                several,
            )
    raise ValueError(f"{path} is damaged: it does not say which network it holds")
