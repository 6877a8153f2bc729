"""The axes of a model's parameters and the names of its sizes, for the layouts of that model.

Each model that layouts can be of has a TOML file in `parity/layouts/models`:

- `axes`: for each parameter and each statistic of a batch the letters of its axes, or a list of
  several, of which a layout takes one. `{n}` stands for the number in a list of modules. Those that
  end in `[0]`, `[1]`... are parts, which are joined along the last axis.
- `sizes`: what the arguments are that are read off. `"f"` is the size of a letter, `"(p q)"` a
  product, `"y features.conv"` the side of a kernel, `"convolutions {n}"` a list of all outputs of
  the modules in a list, and `"y convolutions.{n}"` one of the sides of their kernels.
- `lists`: a list of modules that is as long as another, and whose outputs have the same sizes.
- `same`: a size with another name; `"convolutions -1"` is what the first of a list takes.
- `compared`: arguments that decide what is computed, and that a PyTorch network has fixed.
"""

import functools
import itertools
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from parity.layouts import names, weights
from parity.layouts.axes import Sizes, letters
from train.config.fit_config import FitConfig
from train.learn.network import build_model

DECODER = "decoder.layers"
"""The list of a decoder's dense layers, which a network need not have."""

_FOLDER = Path(__file__).parent / "models"
MODELS = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))
"""The models that layouts can be of."""

# Images on which any strides leave room for any kernels, and some number of classes.
_IMAGE_SHAPE, _CLASSES = (512, 512, 1), 10


class ModelTable(NamedTuple):
    """The file of a model, see above."""

    axes: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, str]
    lists: Mapping[str, str]
    same: Mapping[str, str]
    compared: tuple[str, ...]

    def list_of(self, target: str) -> str | None:
        """The list of modules that a parameter is in, or the one that is as long."""
        name = names.module_list(target)
        return None if name is None else self.lists.get(name, name)

    def key(self, letter: str, target: str) -> str:
        """The name of the size of a letter in the axes of a parameter."""
        if letter in ("y", "x"):
            return f"{letter} {target.rpartition('.')[0]}"
        if letter not in ("in", "out"):
            return letter
        index = names.list_index(target)
        assert index is not None
        key = f"{self.list_of(target)} {index if letter == 'out' else index - 1}"
        return self.same.get(key, key)

    def arguments(self, sizes: Sizes) -> dict[str, Any]:
        """Sizes as arguments of the model, those of the decoder left out."""
        return {argument: _value(key, sizes) for argument, key in self.sizes.items()}


def _value(key: str, sizes: Sizes) -> int | list[int]:
    if key.startswith("("):
        return math.prod(sizes[letter] for letter in letters(key))
    if "{n}" in key:
        keys = (key.replace("{n}", str(n)) for n in itertools.count())
        return [sizes[key] for key in itertools.takewhile(sizes.__contains__, keys)]
    return sizes[key]


@functools.cache
def model_table(name: str) -> ModelTable:
    """The table of a model, one of `MODELS`."""
    values = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return ModelTable(
        axes={
            target: (axes,) if isinstance(axes, str) else tuple(axes)
            for target, axes in values["axes"].items()
        },
        sizes=values["sizes"],
        lists=values.get("lists", {}),
        same=values.get("same", {}),
        compared=tuple(values["compared"]),
    )


def parameter_names(config: FitConfig) -> set[str]:
    """The parameters and statistics of a configuration's network, `{n}` for numbers in lists."""
    model = nnx.eval_shape(lambda: build_model(config, _IMAGE_SHAPE, _CLASSES))
    return {names.template(name) for name in weights.variables(model, weights.LEARNED)}
