"""The parameters of a capsjax model by name, and how all of them are replaced."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

LEARNED = (nnx.Param, nnx.BatchStat)
"""The kinds of variables that a model has learned: parameters, and statistics of batches."""

Kinds = Any  # a filter of Flax NNX: a type of variables, or several


def by_name(tree: Any) -> dict[str, Any]:
    """A tree of nested dicts (and lists) of parameters as one dict, its names with dots."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def variables(model: nnx.Module, kinds: Kinds = nnx.Param) -> dict[str, Any]:
    """The variables of a model that are of these kinds, by their names with dots."""
    return by_name(nnx.to_pure_dict(nnx.state(model, kinds)))


def require_shapes(
    model: nnx.Module, shapes: Mapping[str, tuple[int, ...]], kinds: Kinds = nnx.Param
) -> None:
    """A ValueError unless these are the names and the shapes of a model's variables."""
    present = variables(model, kinds)
    if wrong := sorted(present.keys() ^ shapes.keys()):
        raise ValueError(f"the model and the values differ in {', '.join(wrong)}")
    for name, variable in present.items():
        if variable.shape != shapes[name]:
            raise ValueError(f"{name} is {variable.shape}, not {shapes[name]}")


def load(model: nnx.Module, values: Mapping[str, np.ndarray], kinds: Kinds = nnx.Param) -> None:
    """Replaces all variables of a model that are of these kinds by values of the same names.

    The values are cast to the dtypes of the variables, and have their shapes, see `require_shapes`.
    """
    require_shapes(model, {name: value.shape for name, value in values.items()}, kinds)
    loaded = jax.tree_util.tree_map_with_path(
        lambda path, variable: jax.numpy.asarray(values[_name(path)], variable.dtype),
        nnx.to_pure_dict(nnx.state(model, kinds)),
    )
    nnx.update(model, loaded)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
