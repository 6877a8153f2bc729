"""What a `CapsNet` may compute beside its weights, and the choices in which public ones differ."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import CapsNet, Routed, Squash, route
from capsjax.layers.features import per_instance
from capsjax.routing import Dynamic, RoutingInputs

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
ITERATIONS = (1, 2, 3, 4, 5)
SLOPES = (0.0, 0.01, 0.1, 0.2, 0.3)
"""Of rectifiers below zero: none, and those that frameworks take for a leaky one."""

EPSILONS = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)
"""Values that implementations add to the divisor of squash, or under the root of a length."""


@dataclass(frozen=True)
class Dialect:
    """The computation of a `CapsNet` beside its weights."""

    routing: Dynamic  # of the class capsules, with their squash
    primary_squash: Squash
    order: str  # of primary capsules, see `capsjax.PrimaryCaps`
    # Whether the channels of their convolution are in the order (component, type) instead of (type,
    # component), or for the order `"flat"` the other way round.
    regrouped: bool = False
    normalised: bool = False  # whether the network normalises its images as MNIST's are
    slope: float = 0.0  # of the rectifier for negative numbers
    instance_norm: bool = False  # before it
    # Convolutions whose kernels have y and x swapped, and whether positions are numbered column by
    # column.
    features_swapped: bool = False
    primary_swapped: bool = False
    by_column: bool = False
    length_epsilon: float = 0.0  # added to the square of a length under the root
    # `"lengths"` as they are, `"squared"` or through a `"softmax"`; or poses, the axes of a square
    # `[J, D]` `"transposed"`.
    output: str = "lengths"


@dataclass(frozen=True, eq=False)
class Switch:
    """One choice of a dialect; those that change the same field exclude each other."""

    name: str  # in words, as the end of "agrees with ..."
    changes: Mapping[str, Any]  # fields of `Dialect`, with dots for members, and their values

    @property
    def is_epsilon(self) -> bool:
        """Whether it is a small number, which hardly moves what is computed."""
        return any(path.endswith("epsilon") for path in self.changes)

    def goes_with(self, other: "Switch") -> bool:
        """Whether both can be made."""
        return not self.changes.keys() & other.changes.keys()

    def is_new(self, base: Dialect) -> bool:
        """Whether a dialect has all these fields, and another value in one of them."""
        try:
            now = [attrgetter(path)(base) for path in self.changes]
        except AttributeError:  # of a squash that is a function of its own
            return False
        return now != [*self.changes.values()]


_FLAGS = {
    "slope": ("--model-options", "conv_slope"),
    "instance_norm": ("--model-options", "instance_norm"),
    "order": ("--model-options", "primary_order"),
    "routing.softmax_over": ("--routing-options", "softmax_over"),
    "routing.shared_logits": ("--routing-options", "shared_logits"),
    "routing.detach": ("--routing-options", "detach"),
}


def as_flags(switches: Iterable[Switch]) -> str:
    """Switches as the options of `import` that say the same; nothing where one has none."""
    flags: dict[str, list[str]] = {}
    for path, value in (item for switch in switches for item in switch.changes.items()):
        if path == "normalised":
            flags |= {"--input-mean": [str(MNIST_MEAN)], "--input-std": [str(MNIST_STD)]}
        elif path == "routing.iterations":
            flags["--routing-iterations"] = [str(value)]
        elif path in _FLAGS:
            flag, name = _FLAGS[path]
            flags.setdefault(flag, []).append(f"{name}={str(value).lower()}")
        elif (path, value) != ("regrouped", False):
            return ""
    return " ".join(" ".join([flag, *values]) for flag, values in flags.items())


def has_dialects(model: Any) -> bool:
    """Whether a network is a `CapsNet` with a form of dynamic routing."""
    if not isinstance(model, CapsNet):
        return False
    routing: Any = model.class_caps.routing
    return isinstance(getattr(routing, "settings", routing), Dynamic)


class Variants:
    """A `CapsNet` on some images, its own dialect `base`, and its computations in others.

    What is compared of its lengths is one of `parity.layouts.table.OUTPUTS`.
    """

    def __init__(self, model: Any, images: jax.Array, output_is: str = "lengths") -> None:
        self.model, self.images = model, images
        routing = model.class_caps.routing
        is_plain = isinstance(routing, Dynamic)
        self.parameters = None if is_plain else routing.values(images.dtype)
        self.base = Dialect(
            routing=routing if is_plain else routing.settings,
            primary_squash=model.primary_caps.squash,
            order=model.primary_caps.order,
            slope=model.features.negative_slope,
            instance_norm=model.features.norm is not None,
            output=output_is,
        )
        # Hundreds of dialects are run once each: many have the same first layers, which are kept,
        # and to compile them would take ten times longer.
        self._primary = functools.cache(functools.partial(self.primary, images))
        self._votes = functools.lru_cache(maxsize=32)(
            lambda squash, layer: self.votes(self._primary(layer), squash)
        )
        self._capsules = functools.cache(
            lambda routing, *below: self.capsules(self._votes(*below), routing)
        )

    def output(self, dialect: Dialect, what: str) -> np.ndarray:
        """The lengths `[B, J]` or poses `[B, J, D]` in a dialect."""
        below = dialect.primary_squash, _layer(dialect)
        return np.asarray(_output(dialect, *self._capsules(dialect.routing, *below), what))

    def gradient(self, dialect: Dialect, what: str, cotangent: np.ndarray) -> np.ndarray:
        """The gradient of the weighted sum of that output by the images."""

        def weighted(images: jax.Array) -> jax.Array:
            votes = self.votes(self.primary(images, dialect), dialect.primary_squash)
            output = _output(dialect, *self.capsules(votes, dialect.routing), what)
            return jnp.sum(output * cotangent)

        return np.asarray(jax.grad(weighted)(self.images))

    def primary(self, images: jax.Array, dialect: Dialect) -> jax.Array:
        """Primary capsules of images in a dialect before squash, `[B, I, K]`."""
        if dialect.normalised:
            images = (images - MNIST_MEAN) / MNIST_STD
        features, caps = nnx.clone(self.model.features), nnx.clone(self.model.primary_caps)
        features.negative_slope, caps.order = dialect.slope, dialect.order
        if dialect.instance_norm and features.norm is None:
            features.norm = per_instance(features.output_shape[-1], images.dtype)
        if dialect.features_swapped:
            _swap(features.conv)
        # Numbered column by column are the positions of maps whose rows and columns are swapped.
        if dialect.primary_swapped != dialect.by_column:
            _swap(caps.conv)
        if dialect.regrouped:
            sizes = (caps.types, caps.dim) if dialect.order == "flat" else (caps.dim, caps.types)
            for parameter in (caps.conv.kernel, caps.conv.bias):
                value = parameter[...]
                split = value.reshape(*value.shape[:-1], *sizes)
                parameter[...] = split.swapaxes(-1, -2).reshape(value.shape)
        maps = features(images)
        if dialect.by_column:
            height, width, filters = caps.conv.input_shape
            caps.conv.input_shape = width, height, filters
            maps = maps.swapaxes(1, 2)
        return caps.project(maps)

    def votes(self, s: jax.Array, squash: Squash) -> jax.Array:
        """Votes `[B, I, J, D]` of primary capsules before squash."""
        return self.model.class_caps.votes(squash(s).astype(s.dtype))

    def capsules(self, votes: jax.Array, routing: Dynamic) -> tuple[jax.Array, jax.Array]:
        """Class capsules `[B, J, D]` and their lengths `[B, J]`."""

        def routed(votes: jax.Array, activation: jax.Array) -> Routed:
            inputs = RoutingInputs(votes, activation, parameters=self.parameters)
            state = routing.first(inputs)
            # A plain loop, while each loop of JAX's would be compiled.
            for index in range(1, routing.iterations):
                state = routing.again(inputs, state, index)
            return routing.outcome(state)

        return route(routed, votes, votes[..., 0, 0])[:2]


def _layer(dialect: Dialect) -> Dialect:
    """The dialect as far as primary capsules before squash depend on it."""
    return dataclasses.replace(
        dialect, routing=Dynamic(), primary_squash=Squash(), output="", length_epsilon=0.0
    )


def _swap(conv: Any) -> None:
    """Swaps y and x of a convolution's kernel."""
    conv.kernel[...] = conv.kernel[...].swapaxes(0, 1)


def as_output(lengths: jax.Array, kind: str) -> jax.Array:
    """Lengths `[B, J]` as a network returns them, one of `parity.layouts.table.OUTPUTS`."""
    if kind == "squared":
        return jnp.square(lengths)
    return jax.nn.softmax(lengths) if kind == "softmax" else lengths


def _output(dialect: Dialect, pose: jax.Array, lengths: jax.Array, what: str) -> jax.Array:
    """The output of a network with these class capsules."""
    if what == "poses":
        return pose.swapaxes(-1, -2) if dialect.output == "transposed" else pose
    if dialect.length_epsilon:
        lengths = jnp.sqrt(jnp.square(lengths) + dialect.length_epsilon)
    return as_output(lengths, dialect.output)


def replaced(value: Any, path: str, new: Any) -> Any:
    """A dataclass with another value of a field, or of a member's."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(
        value, **{name: replaced(getattr(value, name), rest, new) if rest else new}
    )


def detached(base: Dialect) -> Switch:
    """The other choice of what the gradient alone shows."""
    names = ("logits detached from the gradient", "gradients through every iteration")
    return Switch(names[base.routing.detach], {"routing.detach": not base.routing.detach})


def choices(what: str, *, is_square: bool) -> Iterator[Switch]:
    """Every choice there is for lengths or poses, `[B, J, D]` of which may be square."""
    for side in ("in", "out"):
        yield Switch(f"softmax over the {side}put capsules", {"routing.softmax_over": side})
    yield Switch("logits shared by the batch", {"routing.shared_logits": True})
    yield Switch("logits of its own for every example", {"routing.shared_logits": False})
    for count in ITERATIONS:
        name = f"{count} routing iteration{'s' * (count > 1)}"
        yield Switch(name, {"routing.iterations": count})
    yield from _squashes()
    orders = {
        "position_major": "primary capsules numbered position by position",
        "type_major": "primary capsules numbered type by type",
        "flat": "primary capsules cut from the flattened feature maps",
    }
    regrouped = {False: "", True: " (their channels in the order component, type)"}
    for (order, words), (swapped, also) in itertools.product(orders.items(), regrouped.items()):
        yield Switch(words + also, {"order": order, "regrouped": swapped})
    name = f"images normalised inside the module (mean {MNIST_MEAN}, deviation {MNIST_STD})"
    yield Switch(name, {"normalised": True})
    yield Switch("no rectifier after the first convolution", {"slope": 1.0})
    for slope in SLOPES:
        yield Switch(f"a rectifier with the slope {slope:g} below zero", {"slope": slope})
    yield Switch("maps normalised one by one before the rectifier", {"instance_norm": True})
    for layer in ("features", "primary"):
        of = {"features": "first convolution", "primary": "primary capsules"}[layer]
        yield Switch(f"y and x swapped in the kernels of the {of}", {f"{layer}_swapped": True})
    yield Switch("positions numbered column by column", {"by_column": True})
    if what == "lengths":
        yield Switch("lengths as they are", {"output": "lengths"})
        yield Switch("a softmax over the lengths", {"output": "softmax"})
        yield Switch("squared lengths", {"output": "squared"})
        for epsilon in EPSILONS:
            name = f"lengths with {epsilon:g} added to the square under the root"
            yield Switch(name, {"length_epsilon": epsilon})
    elif is_square:
        yield Switch("poses whose two axes of equal size are swapped", {"output": "transposed"})


def _squashes() -> Iterator[Switch]:
    """Every choice of a squash: its axis, and its epsilon in both layers or one of them."""
    fields = {"class": "routing.squash", "primary": "primary_squash"}
    axes = {
        "pose": "squashed over their pose",
        "element": "squashed element by element",
        "capsules": "squashed over all capsules of the layer",
    }
    for (layer, field), (axis, words) in itertools.product(fields.items(), axes.items()):
        yield Switch(f"{layer} capsules {words}", {f"{field}.axis": axis})
    of_layers = {f"the squash of {layer} capsules": (field,) for layer, field in fields.items()}
    for squash, members in {"the squash": tuple(fields.values()), **of_layers}.items():
        names = {(0.0, "length"): f"no epsilon in {squash}"}
        for epsilon in EPSILONS:
            names[epsilon, "length"] = f"{epsilon:g} added to the length that {squash} divides by"
        for epsilon in EPSILONS:
            names[epsilon, "square"] = f"{epsilon:g} added to the square under the root of {squash}"
        for (epsilon, place), name in names.items():
            values = {"epsilon": epsilon, "epsilon_in": place}
            yield Switch(name, {f"{m}.{field}": values[field] for m in members for field in values})
