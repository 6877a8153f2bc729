"""Capsule layers: modules that make capsules or votes, and hand the votes to a routing.

`routed.py` is what those with a routing have in common. All layers take, by name:

- `dtype`, that of what is computed, such as votes: float32 if not given. Norms, statistics of a
  batch, and a routing's softmax are in float32 at least;
- `param_dtype`, that of the parameters: float32 if not given;
- `rngs`, the source of the initial values.
"""

from capsjax import _deprecated
from capsjax.layers.convolutional import ClassCaps, Conv3dCaps, ConvCaps
from capsjax.layers.decoder import ConvDecoder, Decoder
from capsjax.layers.dense import DenseCaps
from capsjax.layers.features import ConvFeatures, NormalizedConv, ResidualFeatures
from capsjax.layers.normalization import BatchNorm, CapsuleNorm
from capsjax.layers.primary import ConvPrimaryCaps, GridShape, PrimaryCaps
from capsjax.layers.routed import Iteration, RoutedCapsules

__getattr__ = _deprecated.names_of(__name__)

__all__ = [
    "BatchNorm",
    "CapsuleNorm",
    "ClassCaps",
    "Conv3dCaps",
    "ConvCaps",
    "ConvDecoder",
    "ConvFeatures",
    "ConvPrimaryCaps",
    "Decoder",
    "DenseCaps",
    "GridShape",
    "Iteration",
    "NormalizedConv",
    "PrimaryCaps",
    "ResidualFeatures",
    "RoutedCapsules",
]
