"""Routings in plain PyTorch, an algorithm a file: slow, obvious, on a whole batch.

Each is a `torch.nn.Module` made with the `Sizes` that it connects and, if it iterates,
`iterations`. Its call takes votes `[B, I, J, D]`, activations `[B, I]` and poses `[B, I, K]` of the
capsules below, and returns everything it computes by name, in that order: the symbols of the paper,
each followed by the number of the iteration (`b1`, `c1`, ..., `b2`, ...), and at the end `capsules`
`[B, J, D]`, `coupling` `[B, I, J]` and `lengths` `[B, J]`, which are pose, coupling and activation
of the result. Its parameters have the names of the capsjax routing's.
"""

import functools
from collections.abc import Callable

from torch import nn

from parity.reference.routing.dynamic import Dynamic
from parity.reference.routing.em import EM
from parity.reference.routing.heinsen import Heinsen
from parity.reference.routing.heinsen_2022 import Heinsen2022
from parity.reference.routing.inverted_attention import InvertedAttention
from parity.reference.routing.k_means import KMeans
from parity.reference.routing.kernel_density import KernelMixture, MeanShift
from parity.reference.routing.self_attention import SelfAttention
from parity.reference.routing.self_routing import SelfRouting
from parity.reference.routing.uniform import Random, Uniform
from parity.reference.routing.variational_bayes import VariationalBayes

ROUTINGS: dict[str, Callable[..., nn.Module]] = {
    "dynamic": Dynamic,
    "dynamic-bias": functools.partial(Dynamic, bias=True),
    "dynamic-leaky": functools.partial(Dynamic, leaky=True),
    "dynamic-prior": functools.partial(Dynamic, prior=True),
    "em": EM,
    "k-means": KMeans,
    "kde-dynamic": MeanShift,
    "kde-em": KernelMixture,
    "heinsen": Heinsen,
    "heinsen-2022": Heinsen2022,
    "inverted-attention": InvertedAttention,
    "random": Random,
    "self-attention": SelfAttention,
    "self-routing": SelfRouting,
    "uniform": Uniform,
    "variational-bayes": VariationalBayes,
}
"""By the names of `capsjax.list_routings()`."""
