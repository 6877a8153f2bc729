"""Keras 2's .h5 files of weights, read as the state dict that PyTorch would have, and written."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from train.system.errors import UserError

State = dict[str, np.ndarray]
"""Tensors by name."""

BFLOAT16 = np.dtype(jnp.bfloat16)

MOST_BYTES = 1 << 32
"""Tensors of a file, all together: over a hundred times those of the paper's CapsNet.

A small file may promise more than any memory holds: compressed, filled with one value, or as a
view that shows a single number a million times.
"""

_DEEPEST = 16
"""Groups in groups of a file."""


def require_room(path: Path, promised: int) -> None:
    """A UserError if the tensors of a file, in bytes, are more than `MOST_BYTES`."""
    if promised > MOST_BYTES:
        raise UserError(
            f"{path} promises tensors of {promised:,} bytes, more than any capsule network has "
            f"({MOST_BYTES:,}): see where it comes from."
        )


def read(path: Path) -> State:
    """Reads the weights that Keras 2 saved, as the state dict that PyTorch would have.

    `conv1/conv1/kernel:0` `[y, x, in, out]` is `conv1.weight` `[out, in, y, x]`, a dense kernel
    `[in, out]` is a weight `[out, in]`, and in a model within the model, `encoder/conv1/kernel:0`
    is `encoder.conv1.weight`. Keras numbers dense layers without a name through a whole program, so
    that those of a model can be `dense_4` to `dense_6`, in a group `decoder` or not: they are
    `decoder.dense_1`, `decoder.dense_2`... in that order.

    Raises:
        UserError: if the file is not what `model.save_weights` or `model.save` wrote, two tensors
            have the same name, or it shows what is in another file.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            root = _own(path, file, ("model_weights",)) if "model_weights" in file else file
            if not isinstance(root, h5py.Group) or "layer_names" not in root.attrs:
                raise UserError(
                    f"{path} has no layer_names and is no file of weights of Keras 2: save it "
                    "there with model.save_weights('weights.h5')."
                )
            datasets = dict(_datasets(path, root, ()))
            require_room(path, sum(dataset.nbytes for dataset in datasets.values()))
            found = {parts: dataset[()] for parts, dataset in datasets.items()}
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or no HDF5 file ({error}).") from error
    dense = sorted({number for parts in found if (number := _dense_number(parts)) is not None})
    names = {parts: _name(parts, dense) for parts in found}
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        both = ", ".join("/".join(parts) for parts, name in names.items() if name == twice[0])
        raise UserError(
            f"{path} has more than one tensor of the name {twice[0]} ({both}): give its layers "
            "names of their own in Keras, and save it anew."
        )
    state = {}
    for parts, array in found.items():
        if names[parts].endswith(".weight"):
            array = np.ascontiguousarray(array.transpose((3, 2, 0, 1) if array.ndim == 4 else None))
        state[names[parts]] = array
    return state


def told_options(path: Path) -> dict[str, float | int]:
    """What a file of a whole model tells of how it computes, as options of `capsnet`.

    That is `conv_slope`, the slope below zero of what follows the first convolution (1 for nothing
    at all), and `routing_iterations`; without those that it does not tell, and empty for a file of
    weights alone.

    Raises:
        UserError: if the file is damaged, or has an activation that is no rectifier.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            layers = list(_layers(json.loads(file.attrs.get("model_config", "null"))))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or no HDF5 file ({error}).") from error
    told: dict[str, float | int] = {}
    after = [number for number, (kind, _) in enumerate(layers, 1) if kind == "Conv2D"]
    if after:
        activation = layers[after[0] - 1][1].get("activation", "linear")
        following = layers[after[0] : after[0] + 1]
        told["conv_slope"] = _slope(path, activation, following)
    for _, config in layers:
        if isinstance(count := config.get("routings"), int):
            told["routing_iterations"] = count
    return told


def encode(state: Mapping[str, np.ndarray]) -> bytes:
    """A file that `read` reads, with the groups in which Keras 2 looks for it."""
    import h5py

    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in state.items():
        layer, *inner, kind = name.split(".")
        if kind == "weight":
            kind, axes = "kernel", (2, 3, 1, 0) if array.ndim == 4 else None
            array = np.ascontiguousarray(array.transpose(axes))
        if array.dtype == BFLOAT16:
            array = array.astype(np.float32)
        layers.setdefault(layer, {})["/".join([*(inner or [layer]), f"{kind}:0"])] = array
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.0.7"
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, array in weights.items():
                group.create_dataset(name, data=array)
    return content.getvalue()


def _layers(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The layers in a model's description, with their settings, in their order."""
    if isinstance(value, dict):
        kind, config = value.get("class_name"), value.get("config")
        if isinstance(kind, str) and isinstance(config, dict) and "name" in config:
            yield kind, config
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _layers(each)


def _slope(path: Path, activation: Any, following: list[tuple[str, dict[str, Any]]]) -> float:
    """The slope below zero of an activation, or, where it is linear, of the layer after it."""
    kind, config = following[0] if following else ("", {})
    if activation == "linear" or isinstance(activation, dict):
        if kind in ("LeakyReLU", "ReLU"):
            keras_3, keras_2 = config.get("negative_slope"), config.get("alpha")
            slope = next((s for s in (keras_3, keras_2) if isinstance(s, int | float)), 0.0)
            return float(slope)
        activation = config.get("activation") if kind == "Activation" else activation
    slopes = {"relu": 0.0, "linear": 1.0}
    if not isinstance(activation, str) or activation not in slopes:
        raise UserError(
            f"{path} has the activation {activation} after its first convolution, but capsjax has "
            "rectifiers there alone."
        )
    return slopes[activation]


def _datasets(
    path: Path, group: Any, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The datasets in a group and in those below it, by the names on the way."""
    for name in group:
        parts = (*above, name)
        if not isinstance(name, str) or not name.isprintable() or len(parts) > _DEEPEST:
            raise UserError(f"{path} has names that Keras does not write: see where it comes from.")
        item = _own(path, group, parts)
        if not hasattr(item, "dtype"):
            yield from _datasets(path, item, parts)
        elif item.shape is None or item.dtype.kind not in "fiub":
            where = "/".join(parts)
            raise UserError(f"{path} has {where} as {item.dtype}, but tensors must be numbers.")
        else:
            yield parts, item


def _own(path: Path, group: Any, parts: tuple[str, ...]) -> Any:
    """The last of these names in a group, which the file itself has; or a UserError.

    Through a link, and through a dataset whose numbers are kept elsewhere, a file from somebody
    else would show, and `export` would hand on, what is in yours.
    """
    import h5py

    where = "/".join(parts)
    if not isinstance(group.get(parts[-1], getlink=True), h5py.HardLink):
        raise UserError(
            f"{path} has a link at {where}, where Keras has tensors: see where it comes from, and "
            "save it anew with model.save_weights('weights.h5')."
        )
    item = group[parts[-1]]
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        raise UserError(
            f"{path} keeps the numbers of {where} in another file: save it anew, whole, with "
            "model.save_weights('weights.h5')."
        )
    return item


def _name(parts: tuple[str, ...], dense: list[int]) -> str:
    """The name of a tensor in PyTorch, given the numbers of all dense layers without a name."""
    group, *scopes, kind = parts if len(parts) > 1 else ("", *parts)
    number = _dense_number(parts)
    # Of a layer, the scope is the layer again: `conv1/conv1/kernel:0`, or `conv1/conv1_1/...`.
    own = re.compile(rf"{re.escape(group)}(_\d+)?")
    path = [group, *(scope for scope in scopes if not own.fullmatch(scope))]
    if number is not None:
        path = ["decoder", f"dense_{dense.index(number) + 1}"]
    kind = kind.partition(":")[0]
    return ".".join([*path, "weight" if kind == "kernel" else kind])


def _dense_number(parts: tuple[str, ...]) -> int | None:
    """The number of the unnamed dense layer that a weight is of; None for other weights."""
    names = (re.fullmatch(r"dense(?:_(\d{1,9}))?", part) for part in parts)
    found = next(filter(None, names), None)
    return found and int(found[1] or 0)
