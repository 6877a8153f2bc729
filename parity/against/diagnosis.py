"""Which choice of a public dialect explains a difference: single switches first, then pairs."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import DynamicRouting, PriorRouting, Routed, Squash, norm, route
from parity.check.comparison import error_between

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
ITERATIONS = (1, 2, 3, 4, 5)
EPSILONS: tuple[tuple[float, Literal["length", "square"]], ...] = (
    (1e-9, "length"),
    (1e-8, "length"),
    (1e-7, "length"),
    (1e-6, "length"),
    (1e-5, "length"),
    (1e-9, "square"),
    (1e-8, "square"),
    (1e-7, "square"),
    (1e-6, "square"),
    (1e-5, "square"),
)
"""Values that implementations add to what squash divides by, and where."""
LENGTH_EPSILONS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5)

MOST_GRADIENTS = 100
"""Of how many combinations that agree forwards the gradient is taken."""


@dataclass(frozen=True)
class Dialect:
    """What a `CapsNet` computes beside its weights.

    Attributes:
        routing: of the class capsules, with their squash.
        order: of primary capsules, see `capsjax.PrimaryCaps`.
        regrouped: whether the channels of their convolution are in the order (component, type)
            instead of (type, component), or for the order `"flat"` the other way round.
        primary_squash: of primary capsules.
        normalised: whether the network normalises its images as MNIST's are.
        squared: whether `lengths` are squared.
        length_epsilon: added to the square of a length under the root.
        softmax: whether `lengths` are the softmax of the lengths.
        transposed: whether the axes of a square `[J, D]` are swapped.
    """

    routing: DynamicRouting
    order: str
    primary_squash: Squash
    regrouped: bool = False
    normalised: bool = False
    squared: bool = False
    length_epsilon: float = 0.0
    softmax: bool = False
    transposed: bool = False


@dataclass(frozen=True)
class Switch:
    """One choice of a dialect.

    Attributes:
        name: in words, as the end of "agrees with ...".
        slots: what it decides; switches that decide the same thing exclude each other.
        apply: makes a dialect that has made the choice.
        only_gradient: whether only the gradient shows it.
        is_epsilon: whether it is a small number, which cannot matter more in company.
    """

    name: str
    slots: frozenset[str]
    apply: Callable[[Dialect], Dialect]
    only_gradient: bool = False
    is_epsilon: bool = False


@dataclass(frozen=True)
class Finding:
    """How far a module is from capsjax with some switches.

    Attributes:
        switches: what was changed; nothing for the layout as it is.
        forward: relative error of the output.
        gradient: that of the gradient; None where it was not taken.
    """

    switches: tuple[Switch, ...]
    forward: float
    gradient: float | None

    def __str__(self) -> str:
        """The switches in words."""
        return " and ".join(switch.name for switch in self.switches) or "the layout as it is"


@dataclass(frozen=True)
class Diagnosis:
    """What a search found.

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
    """What a module computed, and how far capsjax may be from it.

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


class Variants:
    """A `CapsNet` that can be asked what it would compute in another dialect.

    Args:
        model: the network, which is not changed; its routing is dynamic, with a prior or without.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        routing = model.class_caps.routing
        self.prior = routing.prior[...] if isinstance(routing, PriorRouting) else None
        self.base = Dialect(
            routing=routing.routing if isinstance(routing, PriorRouting) else routing,
            order=model.primary_caps.order,
            primary_squash=model.primary_caps.squash,
        )
        self._layers: dict[tuple[str, bool], Any] = {}

    def output(
        self, dialect: Dialect, images: jax.Array, what: str, s: jax.Array | None = None
    ) -> jax.Array:
        """Class capsules in a dialect.

        Args:
            dialect: the choices.
            images: `[B, H, W, C]`.
            what: `"lengths"`, `[B, J]` is returned, or `"poses"`, `[B, J, D]`.
            s: `primary(dialect, images)`, if it is known already.
        """
        s = self.primary(dialect, images) if s is None else s
        primary = dialect.primary_squash(s).astype(s.dtype)
        votes = self.model.class_caps.votes(primary)

        def routing(votes: jax.Array, activation: jax.Array) -> Routed:
            del activation
            b = dialect.routing.initial_logits(votes)
            # The trace is a plain loop, while each loop of JAX's would be compiled.
            trace = dialect.routing.trace_from(b if self.prior is None else b + self.prior, votes)
            return Routed(trace.v[-1], norm(trace.v[-1]), trace.c[-1])

        routed = route(routing, votes, primary[..., 0])
        return _told(dialect, routed, what)

    def primary(self, dialect: Dialect, images: jax.Array) -> jax.Array:
        """Primary capsules before squash, `[B, I, K]`."""
        if dialect.normalised:
            images = (images - MNIST_MEAN) / MNIST_STD
        return self._primary_layer(dialect).project(self.model.features(images))

    def _primary_layer(self, dialect: Dialect) -> Any:
        """The layer with its capsules in another order."""
        key = (dialect.order, dialect.regrouped)
        if key not in self._layers:
            layer: Any = nnx.clone(self.model.primary_caps)
            layer.order = dialect.order
            if dialect.regrouped:
                sizes = (layer.types, layer.dim)
                sizes = sizes if dialect.order == "flat" else sizes[::-1]
                for parameter in (layer.conv.kernel, layer.conv.bias):
                    value = parameter[...]
                    split = value.reshape(*value.shape[:-1], *sizes)
                    parameter[...] = split.swapaxes(-1, -2).reshape(value.shape)
            self._layers[key] = layer
        return self._layers[key]


def switches(base: Dialect, what: str, *, square: bool = False) -> list[Switch]:
    """Every choice that a dialect has not made.

    Args:
        base: the dialect.
        what: the output, `"lengths"` or `"poses"`.
        square: whether there are as many class capsules as they have components.
    """
    found = _routing_switches(base) + _squash_switches(base) + _primary_switches(base)
    name = f"images normalised inside the module (mean {MNIST_MEAN}, deviation {MNIST_STD})"
    found.append(_switch(name, "input", normalised=True))
    if what == "lengths":
        found.append(_switch("a softmax over the lengths", "output", softmax=True))
        found.append(_switch("squared lengths", "output", squared=True))
        for epsilon in LENGTH_EPSILONS:
            name = f"lengths with {epsilon:g} added to the square under the root"
            found.append(_switch(name, "output", is_epsilon=True, length_epsilon=epsilon))
    elif square:
        name = "poses whose two axes of equal size are swapped"
        found.append(_switch(name, "output", transposed=True))
    return found


def diagnose(model: Any, images: np.ndarray, target: Target) -> Diagnosis:
    """Searches the smallest change of dialect that makes a network compute a module's numbers.

    All switches are tried one at a time, then all pairs. An epsilon that moves the output by less
    than the limit explains nothing, and is not tried in pairs. A detached gradient shows in the
    gradient alone, so it may come on top of a pair.

    Args:
        model: a `CapsNet` with dynamic routing and the module's weights.
        images: `[B, H, W, C]`, what the module was given.
        target: what it made of them.
    """
    search = _Search(Variants(model), jnp.asarray(images), target)
    found = search.run()
    closest = min(search.errors, key=lambda chosen: (search.errors[chosen], len(chosen)))
    return Diagnosis(
        tuple(sorted(found, key=lambda finding: (finding.forward, finding.gradient or 0))),
        Finding(closest, search.errors[closest], None),
        search.errors[closest] <= target.forward_limit,
        len(search.errors) - 1,
    )


class _Search:
    """A search and what it has seen."""

    def __init__(self, variants: Variants, images: jax.Array, target: Target) -> None:
        self.variants, self.images, self.target = variants, images, target
        square = target.what == "poses" and target.output.shape[1] == target.output.shape[2]
        self.switches = switches(variants.base, target.what, square=square)
        self.errors: dict[tuple[Switch, ...], float] = {}
        self._primary: dict[tuple, jax.Array] = {}
        self._gradients_left = MOST_GRADIENTS

    def run(self) -> list[Finding]:
        """The smallest combinations that agree."""
        forward = [switch for switch in self.switches if not switch.only_gradient]
        invisible = [switch for switch in self.switches if switch.only_gradient]
        layout = self._output(())
        self.errors[()] = self._error(layout)
        smaller: list[tuple[Switch, ...]] = (
            [()] if self.errors[()] <= self.target.forward_limit else []
        )
        useful: list[Switch] = []
        for size in (1, 2):
            combinations: list[tuple[Switch, ...]] = [(switch,) for switch in forward]
            if size == 2:
                combinations = [pair for pair in itertools.combinations(useful, 2) if _go(*pair)]
            if found := self._agreeing(_with(smaller, invisible)):
                return found
            fitting = []
            for chosen in combinations:
                output = self._output(chosen)
                self.errors[chosen] = self._error(output)
                if size == 1:
                    moved = error_between(output, layout).relative
                    if chosen[0].is_epsilon and moved <= self.target.forward_limit:
                        continue
                    useful += chosen
                if self.errors[chosen] <= self.target.forward_limit:
                    fitting.append(chosen)
            if found := self._agreeing(fitting):
                return found
            smaller = fitting
        return self._agreeing(_with(smaller, invisible))

    def _agreeing(self, candidates: Sequence[tuple[Switch, ...]]) -> list[Finding]:
        """Those, of candidates that agree forwards, whose gradient agrees, too."""
        found = []
        for chosen in candidates:
            shown = tuple(switch for switch in chosen if not switch.only_gradient)
            gradient = None
            if self.target.gradient is not None:
                if not self._gradients_left:
                    break
                self._gradients_left -= 1
                gradient = self._gradient_error(chosen)
                if gradient > self.target.gradient_limit:
                    continue
            elif shown != chosen:
                continue
            found.append(Finding(chosen, self.errors[shown], gradient))
        return found

    def _dialect(self, chosen: tuple[Switch, ...]) -> Dialect:
        dialect = self.variants.base
        for switch in chosen:
            dialect = switch.apply(dialect)
        return dialect

    def _output(self, chosen: tuple[Switch, ...]) -> np.ndarray:
        dialect = self._dialect(chosen)
        key = (dialect.order, dialect.regrouped, dialect.normalised)
        if key not in self._primary:
            self._primary[key] = self.variants.primary(dialect, self.images)
        # Hundreds of dialects are run once each: to compile them would take ten times longer.
        output = self.variants.output(dialect, self.images, self.target.what, self._primary[key])
        return np.asarray(output)

    def _error(self, output: np.ndarray) -> float:
        return error_between(output, self.target.output).relative

    def _gradient_error(self, chosen: tuple[Switch, ...]) -> float:
        dialect = self._dialect(chosen)

        def weighted(images: jax.Array) -> jax.Array:
            output = self.variants.output(dialect, images, self.target.what)
            return jnp.sum(output * self.target.cotangent)

        assert self.target.gradient is not None
        gradient = np.asarray(jax.grad(weighted)(self.images))
        return error_between(gradient, self.target.gradient).relative


def _with(
    combinations: Sequence[tuple[Switch, ...]], further: Sequence[Switch]
) -> list[tuple[Switch, ...]]:
    """Every combination with every one of further switches."""
    return [(*chosen, switch) for chosen, switch in itertools.product(combinations, further)]


def _told(dialect: Dialect, routed: Routed, what: str) -> jax.Array:
    """What a network tells of its class capsules."""
    if what == "poses":
        if not dialect.transposed:
            return routed.pose
        return routed.pose.swapaxes(-1, -2)
    lengths = routed.activation
    if dialect.length_epsilon:
        lengths = jnp.sqrt(jnp.square(lengths) + dialect.length_epsilon)
    if dialect.squared:
        lengths = jnp.square(lengths)
    return jax.nn.softmax(lengths) if dialect.softmax else lengths


def _go(first: Switch, second: Switch) -> bool:
    """Whether two switches can be made together; two epsilons are not worth the time."""
    together = first.slots & second.slots
    return not together and not (first.is_epsilon and second.is_epsilon)


def _switch(
    name: str,
    *slots: str,
    only_gradient: bool = False,
    is_epsilon: bool = False,
    **changes: Any,
) -> Switch:
    """A switch that changes fields of a `Dialect`."""

    def apply(dialect: Dialect) -> Dialect:
        return dataclasses.replace(dialect, **changes)

    return Switch(name, frozenset(slots), apply, only_gradient, is_epsilon)


def _routing_switches(base: Dialect) -> list[Switch]:
    now = base.routing
    other = {"in": "out", "out": "in"}[now.softmax_over]
    found = [
        _routing_switch(f"softmax over the {other}put capsules", softmax_over=other),
        _routing_switch(
            "logits of its own for every example"
            if now.shared_logits
            else "logits shared by the batch",
            shared_logits=not now.shared_logits,
        ),
        dataclasses.replace(
            _routing_switch(
                "gradients through every iteration"
                if now.detach
                else "logits detached from the gradient",
                detach=not now.detach,
            ),
            only_gradient=True,
        ),
    ]
    for count in ITERATIONS:
        if count != now.iterations:
            name = f"{count} routing iteration{'s' * (count > 1)}"
            found.append(_routing_switch(name, iterations=count))
    return found


def _routing_switch(name: str, **changes: Any) -> Switch:
    def apply(dialect: Dialect) -> Dialect:
        routing = dataclasses.replace(dialect.routing, **changes)
        return dataclasses.replace(dialect, routing=routing)

    return Switch(name, frozenset(changes), apply)


def _squash_switches(base: Dialect) -> list[Switch]:
    axes = {
        "pose": "squashed over their pose",
        "element": "squashed element by element",
        "capsules": "squashed over all capsules of the layer",
    }
    now = {"class": base.routing.squash, "primary": base.primary_squash}
    layers = [name for name, squash in now.items() if isinstance(squash, Squash)]
    found = []
    for layer, (axis, words) in itertools.product(layers, axes.items()):
        squash = now[layer]
        assert isinstance(squash, Squash)
        if squash.axis != axis:
            found.append(_squash_switch(f"{layer} capsules {words}", (layer,), axis=axis))
    choices = [tuple(layers)] if len(layers) == 1 else [tuple(layers), *((x,) for x in layers)]
    for chosen in choices if layers else ():
        words = "" if len(chosen) > 1 else f" of {chosen[0]} capsules"
        places = {"length": "the length that the squash", "square": "the square under the root of"}
        names = {
            (0.0, "length"): f"no epsilon in the squash{words}",
            **{
                (epsilon, place): f"{epsilon:g} added to {places[place]}"
                + (f"{words} divides by" if place == "length" else f" the squash{words}")
                for epsilon, place in EPSILONS
            },
        }
        for (epsilon, place), name in names.items():
            squashes = [now[layer] for layer in chosen]
            is_new = all((s.epsilon, s.epsilon_in) != (epsilon, place) for s in squashes)  # type: ignore[attr-defined]
            if is_new:
                found.append(_squash_switch(name, chosen, epsilon=epsilon, epsilon_in=place))
    return found


def _squash_switch(name: str, layers: tuple[str, ...], **changes: Any) -> Switch:
    def apply(dialect: Dialect) -> Dialect:
        if "primary" in layers:
            squash = dataclasses.replace(dialect.primary_squash, **changes)
            dialect = dataclasses.replace(dialect, primary_squash=squash)
        if "class" in layers:
            now: Any = dialect.routing.squash
            routing = dataclasses.replace(
                dialect.routing, squash=dataclasses.replace(now, **changes)
            )
            dialect = dataclasses.replace(dialect, routing=routing)
        return dialect

    field = "epsilon" if "epsilon" in changes else "axis"
    slots = frozenset(f"{field} of {layer}" for layer in layers)
    return Switch(name, slots, apply, is_epsilon=field == "epsilon")


def _primary_switches(base: Dialect) -> list[Switch]:
    orders = {
        "position_major": "primary capsules numbered position by position",
        "type_major": "primary capsules numbered type by type",
        "flat": "primary capsules cut from the flattened feature maps",
    }
    regrouped = {
        False: "",
        True: " (their channels in the order component, type)",
    }
    return [
        _switch(f"{words}{also}", "order", order=order, regrouped=swapped)
        for (order, words), (swapped, also) in itertools.product(orders.items(), regrouped.items())
        if (order, swapped) != (base.order, base.regrouped)
    ]


def _error(found: Finding) -> str:
    return f"{found.forward:.0e}".replace("e-0", "e-").replace("e+00", "")
