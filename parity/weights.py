"""The parameters of a capsjax model by name, and how all of them are replaced."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx


def by_name(tree: Any) -> dict[str, Any]:
    """A tree of nested dicts (and lists) of parameters as one dict, its names with dots."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(path): leaf for path, leaf in leaves}


def load(model: nnx.Module, values: Mapping[str, np.ndarray]) -> None:
    """Replaces every parameter of a model.

    Args:
        model: the model; changed in place.
        values: for each parameter, by its name with dots, an array of its shape, which is cast to
            its dtype.

    Raises:
        ValueError: a parameter is missing, left over, or of another shape.
    """
    pure = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    present = by_name(pure)
    if wrong := sorted(present.keys() ^ values.keys()):
        raise ValueError(f"the model and the values differ in {', '.join(wrong)}")
    for name, parameter in present.items():
        if parameter.shape != values[name].shape:
            raise ValueError(f"{name} is {parameter.shape}, not {values[name].shape}")
    loaded = jax.tree_util.tree_map_with_path(
        lambda path, parameter: jax.numpy.asarray(values[_name(path)], parameter.dtype), pure
    )
    nnx.update(model, loaded)


def _name(path: Sequence[Any]) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
