"""Routing algorithms: one published algorithm a file, its settings the one public class.

`_base.py` is the contract of all of them and `_inputs.py` what they see, `_batching.py` takes them
over batches and the positions of a convolution, and `_implementations.py` computes those of dense
layers in several ways.
"""

import dataclasses
import inspect
from typing import Any, Literal, cast, get_args

from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks, _deprecated
from capsjax.routing._base import (
    IterativeRouting,
    LearnedRouting,
    Parameters,
    Routed,
    Routing,
    Sizes,
    UnsizedRouting,
    name_of,
)
from capsjax.routing._batching import EXAMPLES, Competition, map_examples, route, trace
from capsjax.routing._implementations import (
    IMPLEMENTATIONS,
    Implementation,
    dense_votes,
    implementation_on,
    route_dense,
)
from capsjax.routing._inputs import RoutingInputs, softmax_over_out
from capsjax.routing.dynamic import Dynamic, DynamicBias, DynamicLeaky, DynamicPrior, DynamicTrace
from capsjax.routing.em import EM, EMTrace
from capsjax.routing.heinsen import Heinsen, HeinsenTrace
from capsjax.routing.heinsen_2022 import Heinsen2022, Heinsen2022Trace
from capsjax.routing.inverted_attention import InvertedAttention, InvertedAttentionTrace
from capsjax.routing.k_means import KMeans, KMeansTrace
from capsjax.routing.kernel_density import KDEEM, KDEDynamic, KDEDynamicTrace, KDEEMTrace
from capsjax.routing.self_attention import SelfAttention, SelfAttentionTrace
from capsjax.routing.self_routing import SelfRouting, SelfRoutingTrace
from capsjax.routing.uniform import Random, Uniform, UniformTrace
from capsjax.routing.variational_bayes import VariationalBayes, VariationalBayesTrace

RoutingName = Literal[
    "dynamic",
    "dynamic-bias",
    "dynamic-leaky",
    "dynamic-prior",
    "em",
    "heinsen",
    "heinsen-2022",
    "inverted-attention",
    "k-means",
    "kde-dynamic",
    "kde-em",
    "random",
    "self-attention",
    "self-routing",
    "uniform",
    "variational-bayes",
]

AnyRouting = RoutingName | Routing | UnsizedRouting
"""A routing as layers and models take it: an object, or by name with its default options."""

_ROUTINGS: dict[RoutingName, type[Routing | UnsizedRouting]] = {
    "dynamic": Dynamic,
    "dynamic-bias": DynamicBias,
    "dynamic-leaky": DynamicLeaky,
    "dynamic-prior": DynamicPrior,
    "em": EM,
    "heinsen": Heinsen,
    "heinsen-2022": Heinsen2022,
    "inverted-attention": InvertedAttention,
    "k-means": KMeans,
    "kde-dynamic": KDEDynamic,
    "kde-em": KDEEM,
    "random": Random,
    "self-attention": SelfAttention,
    "self-routing": SelfRouting,
    "uniform": Uniform,
    "variational-bayes": VariationalBayes,
}


def list_routings() -> list[str]:
    """The names that `create_routing` takes.

    Examples:
        >>> import capsjax
        >>> capsjax.list_routings()[:3]
        ['dynamic', 'dynamic-bias', 'dynamic-leaky']
    """
    return sorted(get_args(RoutingName))


def routing_options(name: str) -> list[str]:
    """The options that `create_routing` takes for a name of `list_routings()`.

    Examples:
        >>> import capsjax
        >>> capsjax.routing_options("k-means")
        ['iterations', 'similarity', 'squash']
    """
    return list(inspect.signature(_routing(name)).parameters)


def _routing(name: str) -> type[Routing | UnsizedRouting]:
    return _ROUTINGS[cast(RoutingName, _checks.one_of("routing", name, list_routings()))]


def create_routing(name: str, **options: Any) -> Routing | UnsizedRouting:
    """Makes a routing by its name.

    The result is an object of the class of that name, `KMeans` for `"k-means"`, and can be given to
    a model or a layer.

    Args:
        name: one of `list_routings()`.
        **options: arguments of its class, as Python has them or as JSON has: a list for a tuple,
            and for `squash` a dict of the fields of `Squash`.

    Raises:
        ValueError: there is no routing or option of that name, or an option has a wrong value.

    Examples:
        >>> import capsjax
        >>> capsjax.create_routing("dynamic", iterations=1).iterations
        1
    """
    _checks.known_options(f"routing {name!r}", options, routing_options(name))
    return _routing(name)(**options)


def as_routing(routing: AnyRouting) -> Routing | UnsizedRouting:
    """A routing of what stands for one: an object as it is, or by name with its default options.

    Raises:
        ValueError: there is no routing of that name, or it is no routing.

    Examples:
        >>> import capsjax
        >>> type(capsjax.routing.as_routing("em")).__name__
        'EM'
    """
    made = create_routing(routing) if isinstance(routing, str) else routing
    if isinstance(made, type) or not (isinstance(made, UnsizedRouting) or callable(made)):
        raise ValueError(
            "routing must be a name of list_routings() or a routing, such as "
            f"create_routing('dynamic'), not {routing!r}"
        )
    return made


def sized(routing: AnyRouting, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> Routing:
    """The routing of a layer: as given, or built for its sizes; a ValueError if it is none."""
    made = as_routing(routing)
    if isinstance(made, UnsizedRouting):
        return made.build(sizes, param_dtype=param_dtype, rngs=rngs)
    return made


def routing_settings(routing: AnyRouting) -> tuple[str, dict[str, Any]]:
    """What `create_routing` takes to make a routing: its name, and all of its options.

    Without `shared_axes`, which are names of where it is computed.

    Raises:
        ValueError: it is none of this library's.

    Examples:
        >>> import capsjax
        >>> capsjax.routing.routing_settings(capsjax.routing.Uniform())[0]
        'uniform'
    """
    settings = getattr(as_routing(routing), "settings", as_routing(routing))
    for name, made in _ROUTINGS.items():
        if type(settings) is made and dataclasses.is_dataclass(settings):
            fields = [field.name for field in dataclasses.fields(settings) if field.init]
            return name, {n: getattr(settings, n) for n in fields if n != "shared_axes"}
    raise ValueError(f"{name_of(routing)} is none of the routings of capsjax.list_routings()")


__getattr__ = _deprecated.names_of(__name__)

__all__ = [
    "EM",
    "EXAMPLES",
    "IMPLEMENTATIONS",
    "KDEEM",
    "AnyRouting",
    "Competition",
    "Dynamic",
    "DynamicBias",
    "DynamicLeaky",
    "DynamicPrior",
    "DynamicTrace",
    "EMTrace",
    "Heinsen",
    "Heinsen2022",
    "Heinsen2022Trace",
    "HeinsenTrace",
    "Implementation",
    "InvertedAttention",
    "InvertedAttentionTrace",
    "IterativeRouting",
    "KDEDynamic",
    "KDEDynamicTrace",
    "KDEEMTrace",
    "KMeans",
    "KMeansTrace",
    "LearnedRouting",
    "Parameters",
    "Random",
    "Routed",
    "Routing",
    "RoutingInputs",
    "RoutingName",
    "SelfAttention",
    "SelfAttentionTrace",
    "SelfRouting",
    "SelfRoutingTrace",
    "Sizes",
    "Uniform",
    "UniformTrace",
    "UnsizedRouting",
    "VariationalBayes",
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
    "routing_settings",
    "softmax_over_out",
    "trace",
]
