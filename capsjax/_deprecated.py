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
    "KernelMixtureRouting=KDEEM KernelMixtureTrace=KDEEMTrace LearnedPrior=DynamicPrior "
    "MeanShiftRouting=KDEDynamic MeanShiftTrace=KDEDynamicTrace RoutingTrace=DynamicTrace "
    "SelfRouter=SelfRouting StepwiseRouting=IterativeRouting UniformRouting=Uniform "
    "EMRouting=EM HeinsenRouting=Heinsen Heinsen2022Routing=Heinsen2022 "
    "InvertedAttentionRouting=InvertedAttention PriorRouting=DynamicPrior "
    "SelfAttentionRouting=SelfAttention VariationalBayesRouting=VariationalBayes",
}
"""By the module that has them the new names, and `old=new` where they differ."""

MOVED = {
    pair.partition("=")[0]: (module, pair.rpartition("=")[2])
    for module, pairs in _NEW.items()
    for pair in pairs.split()
}
"""Old name -> module and name."""

_BUILT = {
    "EMRouting": ("out_capsules",),
    "HeinsenRouting": ("in_capsules", "out_capsules"),
    "Heinsen2022Routing": (),
    "InvertedAttentionRouting": ("out_dim",),
    "PriorRouting": ("in_capsules", "out_capsules"),
    "SelfAttentionRouting": ("in_capsules", "out_capsules"),
    "VariationalBayesRouting": ("out_capsules", "out_dim"),
}
"""Classes of routings with parameters, which settings build now, and the sizes they took."""


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
        what = f"what {owner}.{new}(...).build(...) returns" if name in _BUILT else f"{owner}.{new}"
        warnings.warn(f"{module}.{name} is now {what}", DeprecationWarning, stacklevel=2)
        found = getattr(importlib.import_module(owner), new)
        if name in _BUILT:
            return _Built(found, _BUILT[name])
        return _learned_prior if name == "LearnedPrior" else found

    return __getattr__


def _learned_prior(routing: Any = None) -> Any:
    """`LearnedPrior(DynamicRouting(...))`."""
    made = importlib.import_module("capsjax.routing").DynamicPrior
    return made(**({} if routing is None else vars(routing)))


class _Built:
    """Stands for a class of routings with parameters: makes them as it did, and knows them."""

    def __init__(self, settings: type, sizes: tuple[str, ...]) -> None:
        self.settings, self.sizes = settings, sizes

    def __call__(self, *sizes: Any, param_dtype: Any = "float32", rngs: Any, **options: Any) -> Any:
        given = next((options.pop(n) for n in ("options", "settings") if n in options), None)
        if "routing" in options:
            given = _learned_prior(options.pop("routing"))
        of_sizes = importlib.import_module("capsjax.routing").Sizes
        if self.sizes:
            named = dict(zip(self.sizes, sizes, strict=False))
            named |= {n: options.pop(n) for n in self.sizes if n in options}
            sizes = (of_sizes(**{**dict.fromkeys(of_sizes._fields, 1), **named}),)
        settings: Any = self.settings(**options) if given is None else given
        return settings.build(*sizes, param_dtype=param_dtype, rngs=rngs)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(getattr(instance, "settings", None), self.settings)
