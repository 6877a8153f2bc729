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
from capsjax.routing.protocol import EXAMPLES, Routed, Routing, UnsizedRouting, map_examples, route


class _Entry(NamedTuple):
    make: Callable[..., Routing | UnsizedRouting]
    options: list[str]


def _with_learned_prior(**options: Any) -> LearnedPrior:
    return LearnedPrior(DynamicRouting(**options))


_ROUTINGS = {
    "dynamic": _Entry(DynamicRouting, _checks.option_names(DynamicRouting)),
    "dynamic-prior": _Entry(_with_learned_prior, _checks.option_names(DynamicRouting)),
}


def list_routings() -> list[str]:
    """The names that `create_routing` takes."""
    return sorted(_ROUTINGS)


def create_routing(name: str, **options: Any) -> Routing | UnsizedRouting:
    """Makes a routing by its name.

    Both names take the arguments of `DynamicRouting`: `"dynamic"` is it, `"dynamic-prior"` is
    `LearnedPrior` of it. The result can be given to `CapsNet` or `DenseCaps`.

    Args:
        name: one of `list_routings()`.
        **options: arguments of that routing, as Python has them or as JSON has: a list for a tuple,
            and for `squash` a dict of the fields of `Squash`.

    Raises:
        ValueError: there is no routing or option of that name, or an option has a wrong value.
    """
    _checks.one_of("routing", name, list_routings())
    entry = _ROUTINGS[name]
    _checks.known_options(f"routing {name!r}", options, entry.options)
    return entry.make(**options)


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
    "UnsizedRouting",
    "create_routing",
    "dense_votes",
    "implementation_on",
    "list_routings",
    "map_examples",
    "route",
    "route_dense",
]
