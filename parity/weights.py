"""Weight maps: which tensor of a PyTorch network is which parameter of capsjax, and how turned."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

OIHW_TO_HWIO = (2, 3, 1, 0)
OUT_IN_TO_IN_OUT = (1, 0)


class Entry(NamedTuple):
    """A row of a weight map.

    Attributes:
        source: the tensor's name in the PyTorch state dict.
        target: the parameter's name in capsjax, with dots: `features.conv.kernel`.
        axes: the axes of the tensor in the order in which the parameter has them; None for the
            order that they have.
    """

    source: str
    target: str
    axes: tuple[int, ...] | None = None


def reference_map(decoder_layers: int) -> tuple[Entry, ...]:
    """The weight map of `parity.reference.CapsNet` with a decoder of so many dense layers.

    Its class matrices are `[I, J, D, K]`, as in capsjax.
    """
    decoder = []
    for layer in range(decoder_layers):
        source, target = f"decoder.{2 * layer}", f"decoder.layers.{layer}"
        decoder += [
            Entry(f"{source}.weight", f"{target}.kernel", OUT_IN_TO_IN_OUT),
            Entry(f"{source}.bias", f"{target}.bias"),
        ]
    return (
        Entry("conv1.weight", "features.conv.kernel", OIHW_TO_HWIO),
        Entry("conv1.bias", "features.conv.bias"),
        Entry("primary.weight", "primary_caps.conv.kernel", OIHW_TO_HWIO),
        Entry("primary.bias", "primary_caps.conv.bias"),
        Entry("class_caps.weight", "class_caps.kernel"),
        *decoder,
    )


def to_capsjax(
    entries: Sequence[Entry], tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Turns PyTorch tensors, or their gradients or moments, into capsjax's parameters by name.

    Raises:
        ValueError: a tensor is missing, or left over.
    """
    if wrong := sorted(tensors.keys() ^ {entry.source for entry in entries}):
        raise ValueError(f"the weight map and the tensors differ in {', '.join(wrong)}")
    return {
        entry.target: tensors[entry.source]
        if entry.axes is None
        else tensors[entry.source].transpose(entry.axes)
        for entry in entries
    }


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
