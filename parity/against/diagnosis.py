"""The choice of a public dialect that explains a difference: single switches first, then pairs."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import Routed, Squash, route
from capsjax.routing import Dynamic, RoutingInputs
from parity.check.comparison import error_between

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
ITERATIONS = (1, 2, 3, 4, 5)
EPSILONS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5)
"""Values that implementations add to the divisor of squash, or under the root of a length."""

MOST_GRADIENTS = 100
"""Of how many combinations that agree forwards the gradient is taken."""


Layer = tuple[str, bool, bool]
Capsules = tuple[jax.Array, jax.Array]


@dataclass(frozen=True)
class Dialect:
    """The computation of a `CapsNet` beside its weights.

    Attributes:
        routing: of the class capsules, with their squash.
        primary_squash: of primary capsules.
        order: of primary capsules, see `capsjax.PrimaryCaps`.
        regrouped: whether the channels of their convolution are in the order (component, type)
            instead of (type, component), or for the order `"flat"` the other way round.
        normalised: whether the network normalises its images as MNIST's are.
        output: lengths as they are (`""`), `"squared"`, through a `"softmax"`, or with this number
            added to their square under the root; or poses, the axes of a square `[J, D]` swapped
            (`"transposed"`).
    """

    routing: Dynamic
    primary_squash: Squash
    order: str
    regrouped: bool = False
    normalised: bool = False
    output: str | float = ""

    @property
    def layer(self) -> Layer:
        """The fields that decide the primary capsules before squash."""
        return self.order, self.regrouped, self.normalised


@dataclass(frozen=True)
class Switch:
    """One choice of a dialect.

    Attributes:
        name: in words, as the end of "agrees with ...".
        changes: fields of `Dialect`, with dots for members, and their values. Switches that change
            the same field exclude each other.
    """

    name: str
    changes: tuple[tuple[str, Any], ...]

    @property
    def only_gradient(self) -> bool:
        """Whether only the gradient shows it."""
        return "routing.detach" in dict(self.changes)

    @property
    def is_epsilon(self) -> bool:
        """Whether it is a small number, which cannot matter more in company."""
        return any(isinstance(value, float) for _, value in self.changes)

    def goes_with(self, other: "Switch") -> bool:
        """Whether both can be made; two epsilons are not worth the time."""
        is_free = not dict(self.changes).keys() & dict(other.changes).keys()
        return is_free and not (self.is_epsilon and other.is_epsilon)


Combination = tuple[Switch, ...]


@dataclass(frozen=True)
class Finding:
    """The distance of a module from capsjax with some switches.

    Attributes:
        switches: the changes; nothing for the layout as it is.
        forward: relative error of the output.
        gradient: that of the gradient; None where it was not taken.
    """

    switches: Combination
    forward: float
    gradient: float | None

    def __str__(self) -> str:
        """The switches in words."""
        return " and ".join(switch.name for switch in self.switches) or "the layout as it is"


@dataclass(frozen=True)
class Diagnosis:
    """The result of a search.

    Attributes:
        agreeing: the smallest combinations with which everything agrees, the best first.
        closest: the one with the smallest error of the output, of all that were tried.
        output_agrees: whether that error is within its limit, so that only the gradient is not.
        tried: how many were.
    """

    agreeing: tuple[Finding, ...]
    closest: Finding
    output_agrees: bool
    tried: int

    def sentence(self) -> str:
        """The diagnosis in a sentence."""
        if self.agreeing:
            ways = "; or ".join(f"{_error(found)} with {found}" for found in self.agreeing)
            return f"agrees to {ways}"
        if self.output_agrees:
            return (
                f"the outputs agree to {_error(self.closest)} with {self.closest}, but none of "
                f"{self.tried:,} single switches and pairs makes the gradients agree"
            )
        return (
            f"none of {self.tried:,} single switches and pairs makes them agree; the closest is "
            f"{self.closest}, with a relative error of {_error(self.closest)}"
        )


@dataclass(frozen=True, eq=False)
class Target:
    """The numbers of a module, and how far capsjax may be from them.

    Attributes:
        what: `"lengths"` or `"poses"`.
        output: `[B, J]` or `[B, J, D]`.
        cotangent: weights of the output in the sum whose gradient was taken; its shape.
        gradient: with respect to the images, `[B, H, W, C]`; None if there is none.
        forward_limit: of the relative error of the output.
        gradient_limit: of that of the gradient.
    """

    what: str
    output: np.ndarray
    cotangent: np.ndarray
    gradient: np.ndarray | None
    forward_limit: float
    gradient_limit: float


def diagnose(model: Any, images: np.ndarray, target: Target) -> Diagnosis:
    """Searches the smallest change of dialect that makes a network compute a module's numbers.

    All switches are tried one at a time, then all pairs. An epsilon that moves the output by less
    than the limit explains nothing, and is not tried in pairs. A detached gradient shows in the
    gradient alone, so it may come on top of a pair.

    Args:
        model: a `CapsNet` with dynamic routing, with a prior or without, and the module's weights.
        images: `[B, H, W, C]`, the module's input.
        target: the module's numbers.
    """
    search = _Search(Variants(model, jnp.asarray(images)), target)
    found = search.run()
    closest = min(search.errors, key=lambda chosen: (search.errors[chosen], len(chosen)))
    return Diagnosis(
        tuple(sorted(found, key=lambda finding: (finding.forward, finding.gradient or 0))),
        Finding(closest, search.errors[closest], None),
        search.errors[closest] <= target.forward_limit,
        len(search.errors) - 1,
    )


class Variants:
    """A `CapsNet` on some images, and its computations in other dialects.

    Attributes:
        base: its own dialect.
    """

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
            lambda layer, squash: self.votes(self._primary(layer), squash)
        )
        self._capsules = functools.cache(
            lambda layer, squash, routing: self.capsules(self._votes(layer, squash), routing)
        )

    def output(self, dialect: Dialect, what: str) -> np.ndarray:
        """The lengths `[B, J]` or poses `[B, J, D]` in a dialect."""
        capsules = self._capsules(dialect.layer, dialect.primary_squash, dialect.routing)
        return np.asarray(_output(dialect, *capsules, what))

    def gradient(self, dialect: Dialect, what: str, cotangent: np.ndarray) -> np.ndarray:
        """The gradient of the weighted sum of that output by the images."""

        def weighted(images: jax.Array) -> jax.Array:
            votes = self.votes(self.primary(images, dialect.layer), dialect.primary_squash)
            output = _output(dialect, *self.capsules(votes, dialect.routing), what)
            return jnp.sum(output * cotangent)

        return np.asarray(jax.grad(weighted)(self.images))

    def primary(self, images: jax.Array, layer: Layer) -> jax.Array:
        """Primary capsules of images before squash, `[B, I, K]`."""
        order, regrouped, normalised = layer
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

    def capsules(self, votes: jax.Array, routing: Dynamic) -> Capsules:
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

    def __init__(self, variants: Variants, target: Target) -> None:
        self.variants, self.target = variants, target
        is_square = target.what == "poses" and target.output.shape[1] == target.output.shape[2]
        self.switches = list(_switches(variants.base, target.what, is_square=is_square))
        self.errors: dict[Combination, float] = {}
        self._gradients_left = MOST_GRADIENTS

    def run(self) -> list[Finding]:
        """The smallest combinations that agree."""
        forward = [switch for switch in self.switches if not switch.only_gradient]
        has_gradient = self.target.gradient is not None
        invisible = [switch for switch in self.switches if switch.only_gradient and has_gradient]
        layout = self._try(())
        if found := self._agreeing([()], invisible):
            return found
        useful = []
        for switch in forward:
            move = error_between(self._try((switch,)), layout).relative
            if not switch.is_epsilon or move > self.target.forward_limit:
                useful.append(switch)
        singles = [(switch,) for switch in useful]
        if found := self._agreeing(singles) or self._agreeing(singles, invisible):
            return found
        pairs = [(a, b) for a, b in itertools.combinations(useful, 2) if a.goes_with(b)]
        for pair in pairs:
            self._try(pair)
        return self._agreeing(pairs) or self._agreeing(pairs, invisible)

    def _try(self, chosen: Combination) -> np.ndarray:
        """The output with some switches; notes its error."""
        output = self.variants.output(self._dialect(chosen), self.target.what)
        self.errors[chosen] = error_between(output, self.target.output).relative
        return output

    def _agreeing(
        self, combinations: Iterable[Combination], further: Sequence[Switch | None] = (None,)
    ) -> list[Finding]:
        """Those that agree forwards and, each with a further switch, backwards."""
        found = []
        for shown, switch in itertools.product(combinations, further):
            if self.errors[shown] > self.target.forward_limit:
                continue
            chosen = shown if switch is None else (*shown, switch)
            gradient = None
            if self.target.gradient is not None:
                if not self._gradients_left:
                    break
                self._gradients_left -= 1
                dialect, what = self._dialect(chosen), self.target.what
                actual = self.variants.gradient(dialect, what, self.target.cotangent)
                gradient = error_between(actual, self.target.gradient).relative
                if gradient > self.target.gradient_limit:
                    continue
            found.append(Finding(chosen, self.errors[shown], gradient))
        return found

    def _dialect(self, chosen: Combination) -> Dialect:
        dialect = self.variants.base
        for path, value in itertools.chain.from_iterable(switch.changes for switch in chosen):
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


def _switches(base: Dialect, what: str, *, is_square: bool) -> Iterator[Switch]:
    """Every choice that a dialect has not made, for lengths or poses, whose axes may be equal."""
    now = base.routing
    other = {"in": "out", "out": "in"}[now.softmax_over]
    yield _switch(f"softmax over the {other}put capsules", routing__softmax_over=other)
    shared = ("logits shared by the batch", "logits of its own for every example")
    yield _switch(shared[now.shared_logits], routing__shared_logits=not now.shared_logits)
    detached = ("logits detached from the gradient", "gradients through every iteration")
    yield _switch(detached[now.detach], routing__detach=not now.detach)
    for count in ITERATIONS:
        if count != now.iterations:
            name = f"{count} routing iteration{'s' * (count > 1)}"
            yield _switch(name, routing__iterations=count)
    yield from _squash_switches(base)
    orders = {
        "position_major": "primary capsules numbered position by position",
        "type_major": "primary capsules numbered type by type",
        "flat": "primary capsules cut from the flattened feature maps",
    }
    regrouped = {False: "", True: " (their channels in the order component, type)"}
    for (order, words), (swapped, also) in itertools.product(orders.items(), regrouped.items()):
        if (order, swapped) != (base.order, base.regrouped):
            yield _switch(words + also, order=order, regrouped=swapped)
    name = f"images normalised inside the module (mean {MNIST_MEAN}, deviation {MNIST_STD})"
    yield _switch(name, normalised=True)
    if what == "lengths":
        yield _switch("a softmax over the lengths", output="softmax")
        yield _switch("squared lengths", output="squared")
        for epsilon in EPSILONS:
            name = f"lengths with {epsilon:g} added to the square under the root"
            yield _switch(name, output=epsilon)
    elif is_square:
        yield _switch("poses whose two axes of equal size are swapped", output="transposed")


def _squash_switches(base: Dialect) -> Iterator[Switch]:
    axes = {
        "pose": "squashed over their pose",
        "element": "squashed element by element",
        "capsules": "squashed over all capsules of the layer",
    }
    fields = {"class": "routing__squash", "primary": "primary_squash"}
    both = {"class": base.routing.squash, "primary": base.primary_squash}
    now = {layer: squash for layer, squash in both.items() if isinstance(squash, Squash)}
    for layer, (axis, words) in itertools.product(now, axes.items()):
        if now[layer].axis != axis:
            yield _switch(f"{layer} capsules {words}", **{f"{fields[layer]}__axis": axis})
    for layers in dict.fromkeys([tuple(now), *((layer,) for layer in now)]):
        squash = "the squash" if len(layers) > 1 else f"the squash of {''.join(layers)} capsules"
        places = {
            "length": f"added to the length that {squash} divides by",
            "square": f"added to the square under the root of {squash}",
        }
        names = {(0.0, "length"): f"no epsilon in {squash}"}
        for (place, words), epsilon in itertools.product(places.items(), EPSILONS):
            names[epsilon, place] = f"{epsilon:g} {words}"
        for (epsilon, place), name in names.items():
            is_made = any((now[x].epsilon, now[x].epsilon_in) == (epsilon, place) for x in layers)
            if layers and not is_made:
                changes: dict[str, Any] = {f"{fields[layer]}__epsilon": epsilon for layer in layers}
                changes |= {f"{fields[layer]}__epsilon_in": place for layer in layers}
                yield _switch(name, **changes)


def _switch(name: str, **changes: Any) -> Switch:
    """A switch that changes fields; two underscores stand for a dot."""
    return Switch(name, tuple((field.replace("__", "."), new) for field, new in changes.items()))


def _error(found: Finding) -> str:
    return f"{found.forward:.0e}".replace("e-0", "e-").replace("e+00", "")
