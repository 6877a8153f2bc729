"""From a PyTorch module to a capsjax model whose parts have the same names."""

from collections.abc import Callable, Mapping

import numpy as np
from torch import nn

Arrays = dict[str, np.ndarray]

# The axes of a weight in capsjax, as those of PyTorch's.
_AXES: Mapping[type[nn.Module], tuple[int, ...]] = {
    nn.Conv2d: (2, 3, 1, 0),
    nn.ConvTranspose2d: (2, 3, 0, 1),
    nn.Linear: (1, 0),
}


def capsjax_names(reference: nn.Module) -> Callable[[Arrays], Arrays]:
    """What turns arrays by the names of a reference's parameters into capsjax's.

    The weight of a convolution or a dense layer becomes its `kernel`, that of a normalisation its
    `scale`; everything else keeps its name and its axes. A transposed convolution is in capsjax one
    of an image that is spread, so its kernel is turned by 180 degrees. Buffers, which are no
    parameters, are left out.

    Args:
        reference: a module whose attributes have the names of the capsjax model's.
    """
    turned: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    upside_down: set[str] = set()
    for path, module in reference.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            axes = _AXES.get(type(module)) if name == "weight" else None
            target = full
            if axes is not None:
                target = f"{full.removesuffix('weight')}kernel"
            elif name == "weight" and isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                target = f"{full.removesuffix('weight')}scale"
            turned[full] = (target, axes if parameter.ndim > 1 else None)
            if name == "weight" and isinstance(module, nn.ConvTranspose2d):
                upside_down.add(full)

    def to_capsjax(arrays: Arrays) -> Arrays:
        named = {}
        for full, (target, axes) in turned.items():
            if full in arrays:
                named[target] = arrays[full] if axes is None else arrays[full].transpose(axes)
                if full in upside_down:
                    named[target] = named[target][::-1, ::-1]
        return named

    return to_capsjax
