"""A network as plain values and tensors, and back."""

import dataclasses
import functools
import inspect
import json
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from capsjax.capsules import ExponentialSquash, Squash
from capsjax.routing import routing_settings

CODE = "code"
"""The key of what stands for an argument that is code, and in no file."""


def remembers(init: Callable[..., None]) -> Callable[..., None]:
    """Makes a constructor that keeps what it was called with, as JSON, in `arguments`.

    What stands for an argument that is code is `{"code": its name}`. As text it is compared and
    hashed with the structure of the network, and costs a compiled program nothing.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        given = dict(signature.bind(self, *args, **kwargs).arguments)
        own = next(iter(given))
        values = {n: plain(n, v) for n, v in given.items() if n not in (own, "rngs")}
        self.arguments = json.dumps(values)

    return call


def plain(name: str, value: Any) -> Any:
    """An argument as JSON has it."""
    if name in ("dtype", "param_dtype") and value is not None:
        return jnp.dtype(value).name
    is_routing = name == "routing" or (name.endswith("_routing") and not isinstance(value, str))
    if is_routing and value is not None:
        try:
            routing, options = routing_settings(value)
        except ValueError:
            return {CODE: getattr(value, "__name__", type(value).__name__)}
        return [routing, plain("routing_options", options)]
    match value:
        case None | bool() | str():
            return value
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return float(value)
        case Squash() if type(value) is Squash:  # else it may compute anything
            return dataclasses.asdict(value)
        case Mapping():
            return {str(key): plain(str(key), inner) for key, inner in value.items()}
        case Sequence():
            return [plain("", inner) for inner in value]
    if type(value) is ExponentialSquash and value == ExponentialSquash():
        return "exponential"
    return {CODE: getattr(value, "__name__", type(value).__name__)}


def codes(values: Any) -> list[str]:
    """The names of what is code in plain arguments."""
    if isinstance(values, dict):
        if values.keys() == {CODE}:
            return [values[CODE]]
        values = list(values.values())
    if isinstance(values, list):
        return [name for value in values for name in codes(value)]
    return []


def tensors_of(model: nnx.Module) -> dict[str, jax.Array]:
    """The variables of a network by name, parameters and statistics of batches.

    The state of its random numbers is not among them.

    Examples:
        >>> import capsjax
        >>> model = capsjax.create_model("capsnet", pretrained="digits")
        >>> capsjax.models.tensors_of(model)["class_caps.kernel"].shape
        (32, 10, 16, 8)
    """
    _, state = nnx.split(model)
    return {_name(path): variable.get_value() for path, variable in _kept(state)}


def changes(model: nnx.Module, made: nnx.Module) -> str:
    """What of a network, by the first name, is not as it was made; nothing if all is.

    A tensor, by its name or shape, or a setting.
    """
    found, as_made = (
        {name: value.shape for name, value in tensors_of(of).items()} for of in (model, made)
    )
    wrong = {name for name, _ in found.items() ^ as_made.items()}
    now = _settings(model)
    wrong |= {name for name, value in _settings(made).items() if now.get(name) != value}
    return min(wrong, default="")


_NOT_SETTINGS = {
    "arguments",
    "batch_axis",
    "deterministic",
    "implementation",
    "precision",
    "preferred_element_type",
    "remat",
    "rngs",
    "use_running_average",
}
"""Attributes of modules that say how and where they are computed, or in which mode they are."""


def _settings(model: nnx.Module) -> dict[str, str]:
    """Each module's class and attributes, by the names of both; without what is code."""
    found = {}
    for path, module in nnx.iter_modules(model):
        if path:
            found[_name(path)] = f"{type(module).__module__}.{type(module).__qualname__}"
        for name, value in vars(module).items():
            if name not in _NOT_SETTINGS and not name.startswith("_"):
                value = plain(name, value)
                if not codes(value):
                    found[_name((*path, name))] = json.dumps(value)
    return found


def _kept(state: nnx.State) -> list[tuple[Any, Any]]:
    return [(p, v) for p, v in nnx.to_flat_state(state) if not isinstance(v, nnx.RngState)]


def _name(path: Sequence[Any]) -> str:
    return ".".join(map(str, path))


def filled(
    make: Callable[[], nnx.Module], tensors: Mapping[str, jax.Array], device: Any = None
) -> nnx.Module:
    """A network whose variables are tensors of a file, in its own dtypes.

    It is made in the abstract first: nothing is drawn, and what is no network of these tensors
    costs no memory. The device, or sharding, is where they go; by default they stay.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.
    """
    graphdef, state = nnx.split(nnx.eval_shape(make))
    wanted = {_name(path): variable for path, variable in _kept(state)}
    if missing := wanted.keys() - tensors.keys():
        raise ValueError(f"it lacks the tensors {_some(missing)}")
    if unknown := tensors.keys() - wanted.keys():
        raise ValueError(f"its network has no tensors {_some(unknown)}")
    if wrong := [n for n, v in wanted.items() if v.shape != tensors[n].shape]:
        name = min(wrong)
        raise ValueError(
            f"its tensor {name} is of shape {list(tensors[name].shape)}, but must be of "
            f"{list(wanted[name].shape)}"
        )
    for name, variable in wanted.items():
        value = jnp.asarray(tensors[name], variable.dtype)
        variable.set_value(value if device is None else jax.device_put(value, device))
    if any(isinstance(v, nnx.RngState) for _, v in nnx.to_flat_state(state)):
        nnx.update(state, nnx.state(jax.jit(lambda: nnx.state(make(), nnx.RngState))()))
    model = nnx.merge(graphdef, state)
    model.eval()
    return model


def _some(names: Any) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first
