"""Capsule networks for accelerators, in JAX and Flax.

These are the names that most programs need. All routings are in `capsjax.routing`, all layers in
`capsjax.layers`, all networks in `capsjax.models`, what shows a routing's work in
`capsjax.inspection`, what is done to images in `capsjax.preprocessing`, and the cards of the
networks that ship in `capsjax.weights`.
"""

from capsjax import _deprecated
from capsjax._version import __version__ as __version__
from capsjax.capsules import Capsules, Squash, norm, squash
from capsjax.inspection import inspect_layer
from capsjax.layers import (
    ClassCaps,
    ConvCaps,
    ConvFeatures,
    ConvPrimaryCaps,
    Decoder,
    DenseCaps,
    GridShape,
    PrimaryCaps,
)
from capsjax.losses import margin_loss, reconstruction_loss, spread_loss
from capsjax.models import (
    CapsNet,
    CapsNetOutput,
    create_model,
    list_models,
    model_options,
    reconstruct,
)
from capsjax.pretrained import Network, load, save
from capsjax.routing import (
    Routed,
    Routing,
    Sizes,
    create_routing,
    list_routings,
    route,
    routing_options,
    trace,
)
from capsjax.weights import list_pretrained

__getattr__ = _deprecated.names_of(__name__)

__all__ = [
    "CapsNet",
    "CapsNetOutput",
    "Capsules",
    "ClassCaps",
    "ConvCaps",
    "ConvFeatures",
    "ConvPrimaryCaps",
    "Decoder",
    "DenseCaps",
    "GridShape",
    "Network",
    "PrimaryCaps",
    "Routed",
    "Routing",
    "Sizes",
    "Squash",
    "create_model",
    "create_routing",
    "inspect_layer",
    "list_models",
    "list_pretrained",
    "list_routings",
    "load",
    "margin_loss",
    "model_options",
    "norm",
    "reconstruct",
    "reconstruction_loss",
    "route",
    "routing_options",
    "save",
    "spread_loss",
    "squash",
    "trace",
]
