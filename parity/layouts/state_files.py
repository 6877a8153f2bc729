"""Files of weights: PyTorch's, safetensors and Keras' .h5, all read and written as state dicts."""

import io
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity.layouts import keras_files
from parity.layouts.keras_files import BFLOAT16, State, require_room
from train.system.errors import UserError
from train.system.files import write_whole, writing

_CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
_WRAPPERS = ("module.", "_orig_mod.")
_COUNTER, _AVERAGE = ".num_batches_tracked", ".running_mean"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 8
"""Dicts in dicts that a state dict is looked for in."""


def read_state(path: Path) -> State:
    """Reads the tensors of a file by name, each in the dtype that it is kept in.

    It is a file of PyTorch, safetensors or Keras (see `keras_files`), which its content decides,
    whatever it is called. A state dict inside of other dicts is found where it is the only one as
    near, or is called `state_dict`, `model` or alike. `module.` and `_orig_mod.`, with which
    `DataParallel` and `torch.compile` begin all names, are taken off. The batches that PyTorch's
    batch normalisation has counted, which nothing is computed from, are left out; see
    `with_counters`.

    Raises:
        UserError: if the file is missing, damaged or of another kind, holds a pickled model, or
            promises more than `keras_files.MOST_BYTES`.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    read, _ = _KINDS[kind_of(path)]
    state = read(path)
    for wrapper in 2 * _WRAPPERS:
        if state and all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}


def with_counters(state: Mapping[str, np.ndarray], batches: int) -> State:
    """Tensors, and beside the averages of a normalisation PyTorch's int64 counter of `batches`."""
    counters = {
        name.removesuffix(_AVERAGE) + _COUNTER: np.asarray(batches, np.int64)
        for name in state
        if name.endswith(_AVERAGE)
    }
    return {**state, **counters}


def write_state(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes tensors by name to a file of the kind of its suffix, whole or not at all."""
    _, encode = _KINDS[path.suffix.lower()]
    with writing(path):
        write_whole(path, encode(state))


def kind_of(path: Path) -> str:
    """The usual suffix of what is in a file: `.h5`, `.safetensors`, or else `.pt`."""
    with path.open("rb") as file:
        begin = file.read(9)
    if begin.startswith(_HDF5):
        return ".h5"
    if begin[8:] == b"{":  # after the length of a header in JSON
        return ".safetensors"
    suffix = path.suffix.lower()
    is_torch = begin.startswith((b"PK", pickle.PROTO)) or suffix not in _KINDS
    return ".pt" if is_torch else suffix  # a damaged file is told as what it is called


def unwrapped(state: State) -> Iterator[State]:
    """Tensors without what all of their names begin with, one part of the name less each time.

    A network that is a part of another has there all its names so, as in checkpoints of Lightning.
    """
    while len({name.partition(".")[0] for name in state}) == 1 and all("." in n for n in state):
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
        yield state


def require_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    """Passes if a file has one of these suffixes, else a UserError."""
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"{path} has the suffix {path.suffix!r}, but must have one of: {', '.join(suffixes)}."
        )


def _read_torch(path: Path) -> State:
    try:
        # The file, and not its name: PyTorch goes by its suffix, too.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript archives, which are refused below
            content = torch.load(file, map_location="cpu", weights_only=True)
    # Whatever the restricted unpickler and the zip reader raise for a file that is none.
    except Exception as error:
        if _is_pickled_object(path, str(error)):
            blamed = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({blamed[1]})" if blamed else ""
            raise UserError(
                f"{path} holds a pickled model or other objects than tensors{what}, and to load "
                "them would run code from the file: load it in the code it was made with, save "
                "torch.save(model.state_dict(), 'weights.pt'), and import that."
            ) from error
        raise UserError(
            f"{path} is damaged or no PyTorch file: save it anew with "
            "torch.save(model.state_dict(), 'weights.pt')."
        ) from error
    tensors = _unwrap(path, content)
    require_room(path, sum(t.numel() * t.element_size() for t in tensors.values()))
    return {name: _numpy(path, name, tensor) for name, tensor in tensors.items()}


def _is_pickled_object(path: Path, reason: str) -> bool:
    """Whether a file that PyTorch refused holds more than tensors, rather than nonsense."""
    if "GLOBAL" in reason or "TorchScript" in reason:
        return True
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def _unwrap(path: Path, content: Any) -> Mapping[str, torch.Tensor]:
    """The state dict in what a file holds, the nearest in the dicts and lists there."""
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} holds a {type(content).__name__} and no state dict: save "
            "torch.save(model.state_dict(), FILE)."
        )
    inside: list[tuple[Any, Any]] = [("", content)]
    found: list[tuple[Any, Any]] = []
    for _ in range(_DEEPEST):
        found = [item for item in inside if _is_state_dict(item[1])]
        if found:
            break
        members = [member for _, value in inside for member in _members(value)]
        inside = [item for item in members if item[0] in _CONTAINERS] or members
    if len(found) != 1:
        names = ", ".join(str(name) for name, _ in found) or ", ".join(map(str, content))
        raise UserError(
            f"{path} holds {'more than one' if found else 'no'} state dict (there is: "
            f"{names or 'nothing'}): save the one to import alone with "
            "torch.save(state_dict, FILE)."
        )
    return found[0][1]


def _members(value: Any) -> list[tuple[Any, Any]]:
    """The dicts and lists in a dict or a list, by their names."""
    named = value.items() if isinstance(value, Mapping) else enumerate(value)
    return [(name, inner) for name, inner in named if isinstance(inner, Mapping | list | tuple)]


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def _numpy(path: Path, name: str, tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(BFLOAT16)
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise UserError(
            f"{path} has {name} as {tensor.dtype} ({tensor.layout}): save it as float32."
        ) from error


def _torch(array: np.ndarray) -> torch.Tensor:
    array = np.array(array, order="C")  # which leaves a scalar one, as ascontiguousarray does not
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _torch_bytes(state: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    torch.save({name: _torch(array) for name, array in state.items()}, file)
    return file.getvalue()


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}).") from error
    return {name: _numpy(path, name, tensor) for name, tensor in tensors.items()}


def _safetensors_bytes(state: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.torch import save

    return save({name: _torch(array) for name, array in state.items()})


_TORCH = (_read_torch, _torch_bytes)
_KERAS = (keras_files.read, keras_files.encode)
_KINDS = {
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".safetensors": (_read_safetensors, _safetensors_bytes),
    ".h5": _KERAS,
    ".hdf5": _KERAS,
}
"""By a file's suffix what reads it, and what makes its bytes."""
