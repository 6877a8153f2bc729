"""Two networks with the same weights, one in PyTorch and one in capsjax, and their objective."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

import capsjax
from parity.layouts import weights
from parity.layouts.match import match
from parity.layouts.table import get_layout
from parity.reference import OTHERS, REFERENCES
from parity.reference._parts import Reference
from parity.reference.models import MODELS, ModelReference
from parity.reference.models.capsnet import RoutedCapsNet
from parity.reference.routing import ROUTINGS
from train.config.fit_config import FitConfig
from train.config.settings import ObjectiveConfig
from train.learn.network import build_model
from train.learn.objective import Objective
from train.learn.user_routing import takes_iterations

Arrays = dict[str, np.ndarray]
DtypeName = Literal["float32", "float64"]
Sizes = Mapping[str, Any]

SIZES: dict[str, Sizes] = {
    "tiny": MODELS["aff_capsnet"].tiny,  # which has the same arguments
    # The defaults of both constructors are the paper's.
    "paper": {"image_shape": (28, 28, 1), "num_classes": 10},
}
"""The sizes of `CapsNet` that are compared, as arguments of both constructors."""

LAYOUTS: dict[str, Any] = {**REFERENCES, **OTHERS}
"""The PyTorch network of each weight layout, by its name."""

# The axes of a weight in capsjax, as those of PyTorch's.
_KERNEL_AXES: Mapping[type[nn.Module], tuple[int, ...]] = {
    nn.Conv2d: (2, 3, 1, 0),
    nn.ConvTranspose2d: (2, 3, 0, 1),
    nn.Linear: (1, 0),
}


class Pair(NamedTuple):
    """A PyTorch network and a capsjax network that should compute the same numbers."""

    reference: Reference
    model: nnx.Module  # a `capsjax.CapsNet`, or that of a `ModelReference`
    objective: Objective  # of `python -m train`, with the normalisation of images
    # Turns arrays by the names of the reference's state dict (weights, gradients, moments) into
    # arrays by the names of the model's parameters.
    to_capsjax: Callable[[Arrays], Arrays]

    def compared(self, arrays: Arrays) -> Arrays:
        """Of arrays by the names of the model's parameters those that are compared.

        Where in training nothing depends on a parameter, its gradient is zero but for rounding.
        """
        idle = self.reference.idle
        return {name: array for name, array in arrays.items() if name not in idle}

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the reference's parameters."""
        return _dtype(self.reference)

    def in_dtype(self, dtype: DtypeName) -> "Pair":
        """The same pair with a copy of its reference in a dtype."""
        return self._replace(reference=copy.deepcopy(self.reference).to(getattr(torch, dtype)))


PairMaker = Callable[..., Pair]
"""Makes a pair, given `sizes`, `iterations`, `dtype`, `seed`, `biases` and `compute`.

These are arguments of both constructors, such as a value of `SIZES`; the iterations of the routing,
if it iterates; the dtype of parameters and computation, of which float64 needs JAX's x64 mode; the
seed of the weights, which are float32 numbers; whether there are biases, or all are zero; and the
dtype in which capsjax computes, if it is another one.
"""


def layout_pair(
    layout: str, sizes: Sizes, *, iterations: int, compute: str | None = None, **drawn: Any
) -> Pair:
    """The PyTorch network of a weight layout of `LAYOUTS`, and capsjax set to do the same."""
    kind, table = LAYOUTS[layout], get_layout(layout)
    is_other = issubclass(kind, ModelReference)
    iterated = kind.with_iterations(iterations) if is_other else {"iterations": iterations}
    reference = _drawn(lambda: kind(**sizes, **iterated), **drawn)
    config = table.config(sizes["image_shape"], sizes["num_classes"])
    config = config.changed(routing_iterations=iterations)
    to_capsjax = match(table, learned(reference)).to_capsjax
    return _pair_of(reference, to_capsjax, config, sizes, compute)


def routing_pair(
    routing: str, sizes: Sizes, *, iterations: int, compute: str | None = None, **drawn: Any
) -> Pair:
    """The paper's CapsNet with another routing of `ROUTINGS`, in PyTorch and in capsjax."""
    iterated = {"iterations": iterations} if takes_iterations(routing) else {}
    make_routing = functools.partial(ROUTINGS[routing], **iterated)
    reference = _drawn(lambda: RoutedCapsNet(make_routing, **sizes), **drawn)

    def without_routing(arrays: Arrays) -> Arrays:
        return {n: array for n, array in arrays.items() if not n.startswith("routing.")}

    matched = match(get_layout("reference"), without_routing(learned(reference)))

    def to_capsjax(arrays: Arrays) -> Arrays:
        rest = without_routing(arrays)
        of_routing = {f"class_caps.{n}": arrays[n] for n in arrays.keys() - rest.keys()}
        return matched.to_capsjax(rest) | of_routing

    config = FitConfig.of(routing=routing, routing_iterations=iterations)
    return _pair_of(reference, to_capsjax, config, sizes, compute)


def _pair_of(
    reference: Reference,
    to_capsjax: Callable[[Arrays], Arrays],
    config: FitConfig,
    sizes: Sizes,
    compute: str | None,
) -> Pair:
    """A reference, and the network of a configuration in these sizes with its weights."""
    options = {**config.model.options, **sizes}
    shape, classes = options.pop("image_shape"), options.pop("num_classes")
    dtype = str(_dtype(reference))
    config = config.changed(model_options=options, dtype=compute or dtype, param_dtype=dtype)
    # Without values, which come from the reference.
    model = nnx.eval_shape(lambda: build_model(config, shape, classes))
    weights.load(model, to_capsjax(learned(reference)), weights.LEARNED)
    return Pair(reference, model, Objective.of(config), to_capsjax)


def model_pair(
    model: str, sizes: Sizes, *, iterations: int, compute: str | None = None, **drawn: Any
) -> Pair:
    """A published network of `MODELS` in PyTorch and in capsjax."""
    kind = MODELS[model]
    reference = _drawn(lambda: kind(**sizes, **kind.with_iterations(iterations)), **drawn)
    routings: dict[str, Any] = {
        argument: capsjax.create_routing(name, iterations=iterations)
        for argument, name in kind.routings.items()
    }
    made = capsjax.create_model(
        model,
        **sizes,
        **routings,
        dtype=jnp.dtype(compute or _dtype(reference)),
        param_dtype=_dtype(reference),
        rngs=nnx.Rngs(0),
    )
    to_capsjax = functools.partial(same_names, reference)
    weights.load(made, to_capsjax(learned(reference)), weights.LEARNED)
    return Pair(reference, made, Objective(ObjectiveConfig(loss=kind.loss)), to_capsjax)


def same_names(reference: nn.Module, arrays: Arrays) -> Arrays:
    """Turns arrays by the names of a reference's parameters into those of a model with its names.

    The weight of a convolution or a dense layer becomes its `kernel`, that of a normalisation its
    `scale`; everything else keeps its name and its axes. A transposed convolution is in capsjax one
    of an image that is spread, so its kernel is turned by 180 degrees. The averages of a batch's
    statistics, as far as they are there, become `mean` and `var`.
    """
    averages = {"running_mean": "mean", "running_var": "var"}
    turned = {}
    for name, array in arrays.items():
        path, _, own_name = name.rpartition(".")
        if own_name in averages:
            turned[f"{path}.{averages[own_name]}"] = array
    for name in (name for name, _ in reference.named_parameters() if name in arrays):
        target, array = name, arrays[name]
        path, _, own_name = name.rpartition(".")
        module = reference.get_submodule(path)
        if own_name == "weight" and type(module) in _KERNEL_AXES:
            target = f"{path}.kernel"
            array = array.transpose(_KERNEL_AXES[type(module)])
            if isinstance(module, nn.ConvTranspose2d):
                array = array[::-1, ::-1]
        elif own_name == "weight" and isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            target = f"{path}.scale"
        turned[target] = array
    return turned


def learned(reference: nn.Module) -> Arrays:
    """The parameters of a PyTorch module and its statistics of batches, by name."""
    state = reference.state_dict()
    return {name: value.numpy() for name, value in state.items() if value.is_floating_point()}


def _dtype(reference: nn.Module) -> np.dtype:
    """The dtype of the parameters of a PyTorch module."""
    return np.dtype(str(next(reference.parameters()).dtype).removeprefix("torch."))


def _drawn(
    make: Callable[[], Reference], *, dtype: DtypeName, seed: int = 0, biases: bool = True
) -> Reference:
    """Makes a reference, of which a seed decides the initial values and the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference = make()
    reference.draw(torch.Generator().manual_seed(seed), biases=biases)
    return reference.to(getattr(torch, dtype))


MAKERS: dict[str, tuple[Mapping[str, Any], PairMaker]] = {
    "layout": (LAYOUTS, layout_pair),
    "routing": (ROUTINGS, routing_pair),
    "model": (MODELS, model_pair),
}
"""By what is compared: the references by name, and what makes the pair of one of them."""
