"""The choice of a public dialect that explains a difference: single switches first, then pairs."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import Routed, Squash, route
from capsjax.routing import Dynamic, RoutingInputs
from parity.check.comparison import error_between
from parity.user_module.sides import Sides

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
ITERATIONS = (1, 2, 3, 4, 5)
EPSILONS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5)
"""Values that implementations add to the divisor of squash, or under the root of a length."""

MOST_GRADIENTS = 100
"""Of how many combinations that agree forwards the gradient is taken."""


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
    # Lengths as they are (`""`), `"squared"`, through a `"softmax"`, or with this number added to
    # their square under the root; or poses, the axes of a square `[J, D]` `"transposed"`.
    output: str | float = ""


@dataclass(frozen=True, eq=False)
class Switch:
    """One choice of a dialect; those that change the same field exclude each other."""

    name: str  # in words, as the end of "agrees with ..."
    changes: Mapping[str, Any]  # fields of `Dialect`, with dots for members, and their values

    @property
    def is_epsilon(self) -> bool:
        """Whether it is a small number, which cannot matter more in company."""
        return any(isinstance(value, float) for value in self.changes.values())

    def goes_with(self, other: "Switch") -> bool:
        """Whether both can be made; two epsilons are not worth the time."""
        is_free = not self.changes.keys() & other.changes.keys()
        return is_free and not (self.is_epsilon and other.is_epsilon)

    def is_new(self, base: Dialect) -> bool:
        """Whether a dialect has all these fields, and another value in one of them."""
        try:
            now = [attrgetter(path)(base) for path in self.changes]
        except AttributeError:  # of a squash that is a function of its own
            return False
        return now != [*self.changes.values()]


Combination = tuple[Switch, ...]


class Finding(NamedTuple):
    """The distance of a module from capsjax with some switches: relative errors.

    Without a switch it is the layout as it is; the gradient's error is None where there is none.
    """

    switches: Combination
    forward: float
    gradient: float | None

    @property
    def error(self) -> str:
        """The error of the output, as short as that: `2e-7`."""
        return f"{self.forward:.0e}".replace("e-0", "e-").replace("e+00", "")

    def __str__(self) -> str:
        """The switches in words."""
        return " and ".join(switch.name for switch in self.switches) or "the layout as it is"


class Diagnosis(NamedTuple):
    """What a search came to, and the smallest combinations that agree, the best first.

    `tried` is the number of all that were tried.
    """

    sentence: str
    agreeing: tuple[Finding, ...]
    tried: int


def diagnose(sides: Sides) -> Diagnosis:
    """Searches the smallest change of dialect that makes capsjax compute a module's numbers.

    All switches are tried one at a time, then all pairs. An epsilon that moves the output by less
    than the limit explains nothing, and is not tried in pairs. A detached gradient shows in the
    gradient alone, so it may come on top of a pair.

    The network is a `CapsNet` with dynamic routing, with a prior or without.
    """
    search = _Search(Variants(sides.model, jnp.asarray(sides.images)), sides)
    found = sorted(search.run(), key=lambda finding: (finding.forward, finding.gradient or 0))
    nearest = min(search.errors, key=lambda chosen: (search.errors[chosen], len(chosen)))
    closest, tried = Finding(nearest, search.errors[nearest], None), len(search.errors) - 1
    if found:
        sentence = f"agrees to {'; or '.join(f'{one.error} with {one}' for one in found)}"
    elif closest.forward <= sides.forward_limit:
        sentence = (
            f"the outputs agree to {closest.error} with {closest}, but none of {tried:,} single "
            "switches and pairs makes the gradients agree"
        )
    else:
        sentence = (
            f"none of {tried:,} single switches and pairs makes them agree; the closest is "
            f"{closest}, with a relative error of {closest.error}"
        )
    return Diagnosis(sentence, tuple(found), tried)


class Variants:
    """A `CapsNet` on some images, its own dialect `base`, and its computations in others."""

    def __init__(self, model: Any, images: jax.Array) -> None:
        self.model, self.images = model, images
        routing = model.class_caps.routing
        self.prior = None if isinstance(routing, Dynamic) else routing.prior[...]
        self.base = Dialect(
            routing=routing if self.prior is None else routing.settings,
            primary_squash=model.primary_caps.squash,
            order=model.primary_caps.order,
        )
        # Hundreds of dialects are run once each: many have the same first layers, which are kept,
        # and to compile them would take ten times longer.
        self._primary = functools.cache(functools.partial(self.primary, images))
        self._votes = functools.lru_cache(maxsize=32)(
            lambda squash, *layer: self.votes(self._primary(*layer), squash)
        )
        self._capsules = functools.cache(
            lambda routing, *below: self.capsules(self._votes(*below), routing)
        )

    def output(self, dialect: Dialect, what: str) -> np.ndarray:
        """The lengths `[B, J]` or poses `[B, J, D]` in a dialect."""
        below = dialect.primary_squash, dialect.order, dialect.regrouped, dialect.normalised
        return np.asarray(_output(dialect, *self._capsules(dialect.routing, *below), what))

    def gradient(self, dialect: Dialect, what: str, cotangent: np.ndarray) -> np.ndarray:
        """The gradient of the weighted sum of that output by the images."""

        def weighted(images: jax.Array) -> jax.Array:
            layer = dialect.order, dialect.regrouped, dialect.normalised
            votes = self.votes(self.primary(images, *layer), dialect.primary_squash)
            output = _output(dialect, *self.capsules(votes, dialect.routing), what)
            return jnp.sum(output * cotangent)

        return np.asarray(jax.grad(weighted)(self.images))

    def primary(
        self, images: jax.Array, order: str, regrouped: bool, normalised: bool
    ) -> jax.Array:
        """Primary capsules of images before squash, `[B, I, K]`; fields as of `Dialect`."""
        if normalised:
            images = (images - MNIST_MEAN) / MNIST_STD
        caps: Any = nnx.clone(self.model.primary_caps)
        caps.order = order
        if regrouped:
            sizes = (caps.types, caps.dim) if order == "flat" else (caps.dim, caps.types)
            for parameter in (caps.conv.kernel, caps.conv.bias):
                value = parameter[...]
                split = value.reshape(*value.shape[:-1], *sizes)
                parameter[...] = split.swapaxes(-1, -2).reshape(value.shape)
        return caps.project(self.model.features(images))

    def votes(self, s: jax.Array, squash: Squash) -> jax.Array:
        """Votes `[B, I, J, D]` of primary capsules before squash."""
        return self.model.class_caps.votes(squash(s).astype(s.dtype))

    def capsules(self, votes: jax.Array, routing: Dynamic) -> tuple[jax.Array, jax.Array]:
        """Class capsules `[B, J, D]` and their lengths `[B, J]`."""

        def routed(votes: jax.Array, activation: jax.Array) -> Routed:
            inputs, b = RoutingInputs(votes, activation), self.prior
            state = routing.first(inputs) if b is None else routing.from_logits(b, inputs)
            # A plain loop, while each loop of JAX's would be compiled.
            for index in range(1, routing.iterations):
                state = routing.again(inputs, state, index)
            return routing.outcome(state)

        return route(routed, votes, votes[..., 0, 0])[:2]


class _Search:
    """A search, and the errors of the outputs of all combinations that were tried."""

    def __init__(self, variants: Variants, sides: Sides) -> None:
        self.variants, self.sides = variants, sides
        self.errors: dict[Combination, float] = {}
        self._gradients_left = MOST_GRADIENTS

    def run(self) -> list[Finding]:
        """The smallest combinations that agree."""
        layout = self._try(())
        if found := self._agreeing([()]):
            return found
        useful = []
        shape = self.sides.theirs.shape
        is_square = self.sides.what == "poses" and shape[1] == shape[2]
        for switch in _choices(self.sides.what, is_square=is_square):
            if not switch.is_new(self.variants.base):
                continue
            move = error_between(self._try((switch,)), layout).relative
            if not switch.is_epsilon or move > self.sides.forward_limit:
                useful.append(switch)
        if found := self._agreeing([(switch,) for switch in useful]):
            return found
        pairs = [(a, b) for a, b in itertools.combinations(useful, 2) if a.goes_with(b)]
        for pair in pairs:
            self._try(pair)
        return self._agreeing(pairs)

    def _try(self, chosen: Combination) -> np.ndarray:
        """The output with some switches; notes its error."""
        output = self.variants.output(self._dialect(chosen), self.sides.what)
        self.errors[chosen] = error_between(output, self.sides.theirs).relative
        return output

    def _agreeing(self, combinations: Sequence[Combination]) -> list[Finding]:
        """Those that agree, forwards and backwards; if none does, with detached logits on top."""
        sides = self.sides
        near = [chosen for chosen in combinations if self.errors[chosen] <= sides.forward_limit]
        if sides.their_gradient is None:
            return [Finding(chosen, self.errors[chosen], None) for chosen in near]
        for further in ((), (_detached(self.variants.base),)):
            found = []
            for chosen in near[: self._gradients_left]:
                self._gradients_left -= 1
                dialect = self._dialect((*chosen, *further))
                gradient = self.variants.gradient(dialect, sides.what, sides.cotangent)
                error = error_between(gradient, sides.their_gradient).relative
                if error <= sides.gradient_limit:
                    found.append(Finding((*chosen, *further), self.errors[chosen], error))
            if found:
                return found
        return []

    def _dialect(self, chosen: Combination) -> Dialect:
        dialect = self.variants.base
        for path, value in (item for switch in chosen for item in switch.changes.items()):
            dialect = _replaced(dialect, path, value)
        return dialect


def _output(dialect: Dialect, pose: jax.Array, lengths: jax.Array, what: str) -> jax.Array:
    """The output of a network with these class capsules."""
    kind = dialect.output
    if what == "poses":
        return pose.swapaxes(-1, -2) if kind == "transposed" else pose
    if isinstance(kind, float):
        return jnp.sqrt(jnp.square(lengths) + kind)
    if kind == "squared":
        return jnp.square(lengths)
    return jax.nn.softmax(lengths) if kind == "softmax" else lengths


def _replaced(value: Any, path: str, new: Any) -> Any:
    """A dataclass with another value of a field, or of a member's."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(
        value, **{name: _replaced(getattr(value, name), rest, new) if rest else new}
    )


def _detached(base: Dialect) -> Switch:
    """The other choice of what the gradient alone shows."""
    names = ("logits detached from the gradient", "gradients through every iteration")
    return Switch(names[base.routing.detach], {"routing.detach": not base.routing.detach})


def _choices(what: str, *, is_square: bool) -> Iterator[Switch]:
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
    if what == "lengths":
        yield Switch("a softmax over the lengths", {"output": "softmax"})
        yield Switch("squared lengths", {"output": "squared"})
        for epsilon in EPSILONS:
            name = f"lengths with {epsilon:g} added to the square under the root"
            yield Switch(name, {"output": epsilon})
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
