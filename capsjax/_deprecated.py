"""Old names of the library: they work for one more version, and a warning says the new ones."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

_NEW = {
    "capsjax.capsules": "ExponentialSquash",
    "capsjax.inspection": "Inspected coupling_entropy dead_share agreement=vote_cosine "
    "inspect_steps=inspect_iterations",
    "capsjax.layers": "Conv3dCaps ConvDecoder ResidualFeatures Step=Iteration",
    "capsjax.models": "AffCapsNet AttentionCapsNet CNN DeepCaps EfficientCapsNet MatrixCapsNet "
    "SRCapsNet VBCapsNet published_options published_routing",
    "capsjax.routing": "EMTrace EXAMPLES Heinsen Heinsen2022 Heinsen2022Trace HeinsenTrace "
    "InvertedAttention InvertedAttentionTrace KMeansTrace SelfAttention SelfAttentionTrace "
    "SelfRouting SelfRoutingTrace UniformTrace UnsizedRouting VariationalBayes "
    "VariationalBayesTrace as_routing implementation_on map_examples route_dense softmax_over_out "
    "DynamicRouting=Dynamic ExpectationMaximization=EM KMeansRouting=KMeans "
    "KernelMixtureRouting=KDEEM KernelMixtureTrace=KDEEMTrace "
    "MeanShiftRouting=KDEDynamic MeanShiftTrace=KDEDynamicTrace RoutingTrace=DynamicTrace "
    "SelfRouter=SelfRouting StepwiseRouting=IterativeRouting UniformRouting=Uniform",
}
"""By the module that has them the new names, and `old=new` where they differ."""

MOVED = {
    pair.partition("=")[0]: (module, pair.rpartition("=")[2])
    for module, pairs in _NEW.items()
    for pair in pairs.split()
}
"""Old name -> module and name."""


def names_of(module: str) -> Callable[[str], Any]:
    """A `__getattr__` for a module that had other names.

    Args:
        module: its name. The package itself has had all of them, another module those of its own
            that were renamed.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 (this is what a module calls it)
        owner, new = MOVED.get(name, (None, None))
        if owner is None or new is None or module not in ("capsjax", owner):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        what = f"{module}.{name} is now {owner}.{new}"
        warnings.warn(what, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(owner), new)

    return __getattr__
