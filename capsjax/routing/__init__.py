"""Routing algorithms, one published algorithm a file, and their names."""

from collections.abc import Callable
from typing import Any, NamedTuple

from capsjax import _checks
from capsjax.routing.dense import (
    IMPLEMENTATIONS,
    Implementation,
    dense_votes,
    implementation_on,
    route_dense,
)
from capsjax.routing.dynamic import DynamicRouting, RoutingTrace
from capsjax.routing.prior import LearnedPrior, PriorRouting
from capsjax.routing.protocol import (
    EXAMPLES,
    Routed,
    Routing,
    Sizes,
    UnsizedRouting,
    map_examples,
    route,
    softmax_over_out,
    trace,
)
from capsjax.routing.self_routing import SelfRouter, SelfRouting, SelfRoutingTrace
from capsjax.routing.uniform import UniformRouting, UniformTrace
from capsjax.routing.variational_bayes import (
    VariationalBayes,
    VariationalBayesRouting,
    VariationalBayesTrace,
)


class _Entry(NamedTuple):
    make: Callable[..., Routing | UnsizedRouting]
    options: list[str]


def _entry(make: Callable[..., Routing | UnsizedRouting], *without: str) -> _Entry:
    return _Entry(make, _checks.option_names(make, without=without))


def _leaky(**options: Any) -> DynamicRouting:
    return DynamicRouting(leaky=True, **options)


def _with_learned_prior(**options: Any) -> LearnedPrior:
    return LearnedPrior(DynamicRouting(**options))


_OF_DYNAMIC = _entry(DynamicRouting)

_ROUTINGS = {
    "dynamic": _OF_DYNAMIC,
    "dynamic-leaky": _Entry(_leaky, _entry(DynamicRouting, "leaky", "softmax_over").options),
    "dynamic-prior": _Entry(_with_learned_prior, _OF_DYNAMIC.options),
    "self-routing": _entry(SelfRouter),
    "uniform": _entry(UniformRouting),
    "variational-bayes": _entry(VariationalBayes),
}


def list_routings() -> list[str]:
    """The names that `create_routing` takes."""
    return sorted(_ROUTINGS)


def routing_options(name: str) -> list[str]:
    """The options that `create_routing` takes for a name of `list_routings()`."""
    _checks.one_of("routing", name, list_routings())
    return list(_ROUTINGS[name].options)


def create_routing(name: str, **options: Any) -> Routing | UnsizedRouting:
    """Makes a routing by its name.

    A name takes the arguments of its class; `"dynamic-leaky"` and `"dynamic-prior"` take those of
    `DynamicRouting`, and the latter is `LearnedPrior` of it. The result can be given to `CapsNet`
    or `DenseCaps`.

    Args:
        name: one of `list_routings()`.
        **options: arguments of that routing, as Python has them or as JSON has: a list for a tuple,
            and for `squash` a dict of the fields of `Squash`.

    Raises:
        ValueError: there is no routing or option of that name, or an option has a wrong value.
    """
    _checks.known_options(f"routing {name!r}", options, routing_options(name))
    return _ROUTINGS[name].make(**options)


__all__ = [
    "EXAMPLES",
    "IMPLEMENTATIONS",
    "DynamicRouting",
    "Implementation",
    "LearnedPrior",
    "PriorRouting",
    "Routed",
    "Routing",
    "RoutingTrace",
    "SelfRouter",
    "SelfRouting",
    "SelfRoutingTrace",
    "Sizes",
    "UniformRouting",
    "UniformTrace",
    "UnsizedRouting",
    "VariationalBayes",
    "VariationalBayesRouting",
    "VariationalBayesTrace",
    "create_routing",
    "dense_votes",
    "implementation_on",
    "list_routings",
    "map_examples",
    "route",
    "route_dense",
    "routing_options",
    "softmax_over_out",
    "trace",
]
