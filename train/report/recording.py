"""Recording what parts of a network are given and return, while the network runs as it is."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import Capsules
from train.config.fit_config import FitConfig
from train.learn.objective import Objective
from train.system.errors import UserError

CLASSES = "class_caps"
"""The name of the layer of class capsules in every network."""
PRIMARY = "primary_caps"
"""The name of the layer of primary capsules, in networks that have one by itself."""


class Recorder:
    """Stands in the place of a part of a network and notes what goes in and comes out.

    Of its calls that is the last, of those of its `iterate` all.
    """

    def __init__(self, part: Any) -> None:
        self.part = part
        self.arguments: tuple[Any, ...] = ()
        self.result: Any = None
        self.iterated: list[tuple[tuple[Any, ...], Any]] = []

    def __call__(self, *arguments: Any) -> Any:
        self.arguments, self.result = arguments, self.part(*arguments)
        return self.result

    def iterate(self, *arguments: Any) -> Any:
        self.iterated.append((arguments, self.part.iterate(*arguments)))
        return self.iterated[-1][1]

    def __getattr__(self, name: str) -> Any:
        """Any other attribute is the part's."""
        return getattr(self.part, name)


def record(model: nnx.Module, names: Iterable[str]) -> dict[str, Recorder]:
    """Puts recorders in the place of parts of a network, which can only be called after that.

    The names are attributes of the network, with dots for members and numbers in lists. Returns the
    recorder of each part by its name, to be read after a call of the network.
    """
    recorders = {}
    for name in names:
        path, _, last = name.rpartition(".")
        owner = member(model, path)
        recorders[name] = Recorder(member(owner, last))
        if isinstance(owner, nnx.List):
            owner[int(last)] = nnx.static(recorders[name])
        else:
            setattr(owner, last, nnx.static(recorders[name]))
    return recorders


def routed_layers(model: nnx.Module) -> list[str]:
    """The names of a network's layers whose routing can be looked into, that of classes last.

    Raises:
        UserError: there are none.
    """
    named = [
        ".".join(map(str, path))
        for path, module in nnx.iter_modules(model)
        if hasattr(module, "iterations") and hasattr(module, "votes")
    ]
    if not named:
        raise UserError(f"{type(model).__name__} has no layer of routed capsules to look into.")
    return sorted(named, key=lambda name: (name == CLASSES, name))


def member(model: Any, name: str) -> Any:
    """A part of a network by its name, as of `record`; the network itself if that is empty."""
    for part in filter(None, name.split(".")):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model


def watched(model: nnx.Module, config: FitConfig) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function of images uint8 `[n, height, width, channels]`: the capsules inside a network.

    By its name and that of the layer, as in `class_caps.coupling`, it returns `pose` and
    `activation` of the primary capsules and of each layer that routes, and of the latter the
    `coupling`: arrays `[n, ...]`, as the layer returns them or, where all route at once, as after
    the last iteration. The configuration says how the network sees images.

    Raises:
        UserError: the network has no layer that routes.
    """
    names = [PRIMARY, *routed_layers(model)] if hasattr(model, PRIMARY) else routed_layers(model)
    objective, dtype = Objective.of(config), jnp.dtype(config.model.param_dtype)
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state: Any, images: jax.Array) -> dict[str, jax.Array]:
        recorded = nnx.merge(graphdef, state)
        recorders = record(recorded, names)
        recorded(objective.normalise(images, dtype))
        return {
            f"{name}.{what}": array
            for name, recorder in recorders.items()
            for what, array in _made(recorder).items()
        }

    return lambda images: jax.device_get(run(state, jnp.asarray(images)))


def _made(layer: Recorder) -> dict[str, jax.Array]:
    """What a layer of capsules returned, at once or by iterations."""
    result = layer.iterated[-1][1] if layer.iterated else layer.result
    if isinstance(result, Capsules):
        return result._asdict()
    capsules, coupling, *_ = result
    return {**capsules._asdict(), "coupling": coupling}
