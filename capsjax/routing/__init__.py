"""Routing algorithms, one published algorithm a file, and their names."""

from collections.abc import Callable
from typing import Any, NamedTuple

from capsjax import _checks
from capsjax.routing._base import (
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
from capsjax.routing.dense import (
    IMPLEMENTATIONS,
    Implementation,
    dense_votes,
    implementation_on,
    route_dense,
)
from capsjax.routing.dynamic import DynamicRouting, RoutingTrace
from capsjax.routing.em import EMRouting, EMTrace, ExpectationMaximization
from capsjax.routing.heinsen import Heinsen, HeinsenRouting, HeinsenTrace
from capsjax.routing.heinsen_2022 import Heinsen2022, Heinsen2022Routing, Heinsen2022Trace
from capsjax.routing.inverted_attention import (
    InvertedAttention,
    InvertedAttentionRouting,
    InvertedAttentionTrace,
)
from capsjax.routing.k_means import KMeansRouting, KMeansTrace
from capsjax.routing.kernel_density import (
    KernelMixtureRouting,
    KernelMixtureTrace,
    MeanShiftRouting,
    MeanShiftTrace,
)
from capsjax.routing.prior import LearnedPrior, PriorRouting
from capsjax.routing.self_attention import SelfAttention, SelfAttentionRouting, SelfAttentionTrace
from capsjax.routing.self_routing import SelfRouter, SelfRouting, SelfRoutingTrace
from capsjax.routing.stepwise import StepwiseRouting
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
    "em": _entry(ExpectationMaximization),
    "heinsen": _entry(Heinsen),
    "heinsen-2022": _entry(Heinsen2022),
    "inverted-attention": _entry(InvertedAttention),
    "k-means": _entry(KMeansRouting),
    "kde-dynamic": _entry(MeanShiftRouting),
    "kde-em": _entry(KernelMixtureRouting),
    "self-attention": _entry(SelfAttention),
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


def as_routing(routing: str | Routing | UnsizedRouting) -> Routing | UnsizedRouting:
    """A routing as a model takes it: an object as it is, or by name with its default options.

    Raises:
        ValueError: there is no routing of that name.
    """
    return create_routing(routing) if isinstance(routing, str) else routing


__all__ = [
    "EXAMPLES",
    "IMPLEMENTATIONS",
    "DynamicRouting",
    "EMRouting",
    "EMTrace",
    "ExpectationMaximization",
    "Heinsen",
    "Heinsen2022",
    "Heinsen2022Routing",
    "Heinsen2022Trace",
    "HeinsenRouting",
    "HeinsenTrace",
    "Implementation",
    "InvertedAttention",
    "InvertedAttentionRouting",
    "InvertedAttentionTrace",
    "KMeansRouting",
    "KMeansTrace",
    "KernelMixtureRouting",
    "KernelMixtureTrace",
    "LearnedPrior",
    "MeanShiftRouting",
    "MeanShiftTrace",
    "PriorRouting",
    "Routed",
    "Routing",
    "RoutingTrace",
    "SelfAttention",
    "SelfAttentionRouting",
    "SelfAttentionTrace",
    "SelfRouter",
    "SelfRouting",
    "SelfRoutingTrace",
    "Sizes",
    "StepwiseRouting",
    "UniformRouting",
    "UniformTrace",
    "UnsizedRouting",
    "VariationalBayes",
    "VariationalBayesRouting",
    "VariationalBayesTrace",
    "as_routing",
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
