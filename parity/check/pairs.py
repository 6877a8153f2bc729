"""Two networks with the same weights, one in PyTorch and one in capsjax, and what both minimise."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import capsjax
from parity.check import weights
from parity.check.by_name import capsjax_names
from parity.layouts import get_layout, match
from parity.reference import OTHERS, REFERENCES
from parity.reference.models import MODELS
from parity.reference.models._base import ModelReference
from parity.reference.models.capsnet import RoutedCapsNet
from parity.reference.routing import ROUTINGS
from train.config.objective import ObjectiveConfig
from train.learn.network import build_model
from train.learn.objective import Objective

T = TypeVar("T")

Arrays = dict[str, np.ndarray]
DtypeName = Literal["float32", "float64"]
Sizes = Mapping[str, Any]

SIZES: dict[str, Sizes] = {
    # No two sizes are equal that could be confused: 3 x 2 positions of 3 types, so 18 capsules.
    "tiny": {
        "image_shape": (8, 6, 2),
        "num_classes": 10,
        "conv_features": 8,
        "conv_kernel": 3,
        "primary_types": 3,
        "primary_dim": 4,
        "primary_kernel": 2,
        "primary_stride": 2,
        "class_dim": 6,
        "decoder_hidden": (12, 20),
    },
    "paper": {
        "image_shape": (28, 28, 1),
        "num_classes": 10,
        "conv_features": 256,
        "conv_kernel": 9,
        "primary_types": 32,
        "primary_dim": 8,
        "primary_kernel": 9,
        "primary_stride": 2,
        "class_dim": 16,
        "decoder_hidden": (512, 1024),
    },
}
"""The sizes of the networks that are compared, as arguments of both constructors."""


@dataclass(frozen=True)
class Pair:
    """A PyTorch network and a capsjax network that should compute the same numbers.

    Attributes:
        reference: a `torch.nn.Module` that maps NCHW images and labels to its intermediates by
            name, and has `losses`; see `parity.reference`.
        model: a `capsjax.CapsNet`.
        objective: what `python -m train` would minimise, and how images are normalised.
        to_capsjax: turns arrays by the names of the reference's state dict (weights, gradients,
            moments) into arrays by the names of the model's parameters.
        reconstruction: whether the reference's reconstruction term is a `"sum"` or a `"mean"` over
            the pixels; capsjax's is a sum.
        parts: of another model than `CapsNet`, the parts whose results are compared, see
            `ModelReference`.
        idle: parameters on which in training nothing depends. Their gradients are zero but for
            rounding, and nothing of them is compared.
    """

    reference: Any
    model: nnx.Module
    objective: Objective
    to_capsjax: Callable[[Arrays], Arrays]
    reconstruction: Literal["sum", "mean"] = "sum"
    parts: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    def compared(self, arrays: Arrays) -> Arrays:
        """Of arrays by the names of the model's parameters those that are compared."""
        return {name: array for name, array in arrays.items() if name not in self.idle}

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the reference's parameters."""
        return np.dtype(str(next(self.reference.parameters()).dtype).removeprefix("torch."))


def in_float64(pair: Pair) -> Pair:
    """The same pair with a copy of its reference in float64."""
    return dataclasses.replace(pair, reference=copy.deepcopy(pair.reference).double())


PairMaker = Callable[..., Pair]


def build_pair(
    reference: Any,
    to_capsjax: Callable[[Arrays], Arrays],
    sizes: Sizes,
    *,
    dtype: DtypeName,
    seed: int = 0,
    biases: bool = True,
    compute: str | None = None,
    objective: Objective = Objective(),  # noqa: B008 (frozen, has no state)
    reconstruction: Literal["sum", "mean"] = "sum",
    **model_options: Any,
) -> Pair:
    """Draws the weights of a PyTorch network and gives them to a `capsjax.CapsNet`.

    Args:
        reference: the PyTorch network; changed in place.
        to_capsjax: see `Pair`.
        sizes: arguments of the `CapsNet`; a value of `SIZES`.
        dtype: of parameters and computation; float64 needs JAX's x64 mode.
        seed: decides the weights, which are float32 numbers.
        biases: whether there are any, or all are zero.
        compute: dtype in which capsjax computes, if it is another one.
        objective: see `Pair`.
        reconstruction: see `Pair`.
        **model_options: further arguments of the `CapsNet`.
    """
    reference.draw(torch.Generator().manual_seed(seed), biases=biases)
    reference.to(getattr(torch, dtype))
    # Without values, which come from the reference.
    model = nnx.eval_shape(
        lambda: capsjax.CapsNet(
            **sizes,
            dtype=jnp.dtype(compute or dtype),
            param_dtype=np.dtype(dtype),
            rngs=nnx.Rngs(0),
            **model_options,
        )
    )
    state = {name: value.numpy() for name, value in reference.state_dict().items()}
    weights.load(model, to_capsjax(state))
    return Pair(reference, model, objective, to_capsjax, reconstruction)


def layout_pair(layout: str, sizes: Sizes, *, iterations: int, **options: Any) -> Pair:
    """The PyTorch reference of a weight layout, and capsjax set to compute the same.

    Args:
        layout: a name of `REFERENCES`.
        sizes: arguments that both constructors have; a value of `SIZES`.
        iterations: of the routing.
        **options: of `build_pair`.
    """
    table = get_layout(layout)
    reference = REFERENCES[layout](**sizes, iterations=iterations)
    shapes = {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    config = table.config(tuple(sizes["image_shape"]), sizes["num_classes"])
    routing = capsjax.create_routing(
        config.model.routing, iterations=iterations, **config.model.routing_options
    )
    settings = {
        "objective": Objective.of(config),
        "reconstruction": table.options.get("reconstruction_over_pixels", "sum"),
        "routing": routing,
        **config.model.options,
    }
    return build_pair(reference, match(table, shapes).to_capsjax, sizes, **settings, **options)


reference_pair = functools.partial(layout_pair, "reference")


def _seeded(seed: int, make: Callable[[], T]) -> T:
    """Makes a module of which a seed decides the initial values, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def routing_pair(
    routing: str, sizes: Sizes, *, iterations: int, seed: int = 0, **options: Any
) -> Pair:
    """The paper's CapsNet with another routing, in PyTorch and in capsjax.

    Args:
        routing: a name of `ROUTINGS`.
        sizes: arguments that both constructors have; a value of `SIZES`.
        iterations: of the routing, if it iterates.
        seed: of the weights.
        **options: of `build_pair`.
    """
    iterated = {"iterations": iterations} if iterates(routing) else {}
    reference = _seeded(
        seed, lambda: RoutedCapsNet(functools.partial(ROUTINGS[routing], **iterated), **sizes)
    )
    of_network = {
        name: tuple(tensor.shape)
        for name, tensor in reference.state_dict().items()
        if not name.startswith("routing.")
    }
    matched = match(get_layout("reference"), of_network)

    def to_capsjax(arrays: Arrays) -> Arrays:
        of_routing = {n: a for n, a in arrays.items() if n.startswith("routing.")}
        rest = matched.to_capsjax({n: a for n, a in arrays.items() if n not in of_routing})
        return rest | {f"class_caps.{name}": array for name, array in of_routing.items()}

    made = capsjax.create_routing(routing, **iterated)
    return build_pair(reference, to_capsjax, sizes, routing=made, seed=seed, **options)


def _drawn(
    kind: type[ModelReference],
    sizes: Sizes,
    *,
    iterations: int,
    dtype: DtypeName,
    seed: int,
    biases: bool,
) -> ModelReference:
    """A reference of a network, all of its weights drawn from a seed."""
    reference = _seeded(seed, lambda: kind(**sizes, **kind.with_iterations(iterations)))
    reference.draw(torch.Generator().manual_seed(seed), biases=biases)
    return reference.to(getattr(torch, dtype))


def model_pair(
    model: str,
    sizes: Sizes,
    *,
    iterations: int,
    dtype: DtypeName,
    seed: int = 0,
    biases: bool = True,
    compute: str | None = None,
) -> Pair:
    """A published network in PyTorch and in capsjax, with the same weights.

    Args:
        model: a name of `MODELS`.
        sizes: arguments of both.
        iterations: of the routing, if the model has one that iterates.
        dtype: as of `build_pair`, and so are the others.
        seed: see there.
        biases: see there.
        compute: see there.
    """
    kind = MODELS[model]
    reference = _drawn(kind, sizes, iterations=iterations, dtype=dtype, seed=seed, biases=biases)
    routings: dict[str, Any] = {
        argument: capsjax.create_routing(name, iterations=iterations)
        for argument, name in kind.routings.items()
    }
    made = capsjax.create_model(
        model,
        **sizes,
        **routings,
        dtype=jnp.dtype(compute or dtype),
        param_dtype=np.dtype(dtype),
        rngs=nnx.Rngs(0),
    )
    to_capsjax = capsjax_names(reference)
    state = {name: value.detach().numpy() for name, value in reference.named_parameters()}
    weights.load(made, to_capsjax(state))
    return Pair(
        reference, made, Objective(ObjectiveConfig(loss=kind.loss)), to_capsjax, parts=kind.parts
    )


def other_pair(
    layout: str,
    sizes: Sizes,
    *,
    iterations: int,
    dtype: DtypeName,
    seed: int = 0,
    biases: bool = True,
    compute: str | None = None,
) -> Pair:
    """A public implementation of another network, and capsjax set to compute the same.

    Args:
        layout: a name of `OTHERS`.
        sizes: arguments of both.
        iterations: as of `model_pair`, and so are the others.
        dtype: see there.
        seed: see there.
        biases: see there.
        compute: see there.
    """
    kind, table = OTHERS[layout], get_layout(layout)
    reference = _drawn(kind, sizes, iterations=iterations, dtype=dtype, seed=seed, biases=biases)
    image_shape, classes = tuple(sizes["image_shape"]), sizes["num_classes"]
    config = table.config(image_shape, classes)
    further = {name: sizes[name] for name in sizes.keys() - {"image_shape", "num_classes"}}
    config = config.changed(
        model_options={**config.model.options, **further},
        routing_iterations=iterations,
        dtype=compute or dtype,
        param_dtype=dtype,
    )
    made = build_model(config, image_shape, classes)
    state = learned(reference)
    to_capsjax = match(table, {name: array.shape for name, array in state.items()}).to_capsjax
    weights.load(made, to_capsjax(state), weights.LEARNED)
    return Pair(
        reference,
        made,
        Objective.of(config),
        to_capsjax,
        table.options.get("reconstruction_over_pixels", "sum"),
        kind.parts,
        kind.idle,
    )


def learned(reference: torch.nn.Module) -> Arrays:
    """The parameters of a PyTorch module and its statistics of batches, by name."""
    state = reference.state_dict()
    return {name: value.numpy() for name, value in state.items() if value.is_floating_point()}


def iterates(routing: str) -> bool:
    """Whether a routing, by its name, has iterations."""
    return "iterations" in capsjax.routing_options(routing)


PAIRS: dict[str, PairMaker] = {name: functools.partial(layout_pair, name) for name in REFERENCES}
"""By the name of its weight layout, what makes a pair.

Each takes `sizes`, `iterations`, and of the options of `build_pair` at least `dtype`, `seed`,
`biases` and `compute`.
"""
