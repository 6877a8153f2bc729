"""Capsule networks for accelerators, in JAX and Flax."""

from capsjax.capsules import Capsules, Squash, norm, squash
from capsjax.layers import ConvFeatures, Decoder, DenseCaps, PrimaryCaps
from capsjax.losses import margin_loss, reconstruction_loss
from capsjax.models import CapsNet, CapsNetOutput, create_model, list_models
from capsjax.routing import (
    EXAMPLES,
    DynamicRouting,
    LearnedPrior,
    PriorRouting,
    Routed,
    Routing,
    RoutingTrace,
    Sizes,
    UniformRouting,
    UniformTrace,
    UnsizedRouting,
    create_routing,
    implementation_on,
    list_routings,
    map_examples,
    route,
    route_dense,
    routing_options,
    softmax_over_out,
    trace,
)

__version__ = "0.1.0"

__all__ = [
    "EXAMPLES",
    "CapsNet",
    "CapsNetOutput",
    "Capsules",
    "ConvFeatures",
    "Decoder",
    "DenseCaps",
    "DynamicRouting",
    "LearnedPrior",
    "PrimaryCaps",
    "PriorRouting",
    "Routed",
    "Routing",
    "RoutingTrace",
    "Sizes",
    "Squash",
    "UniformRouting",
    "UniformTrace",
    "UnsizedRouting",
    "create_model",
    "create_routing",
    "implementation_on",
    "list_models",
    "list_routings",
    "map_examples",
    "margin_loss",
    "norm",
    "reconstruction_loss",
    "route",
    "route_dense",
    "routing_options",
    "softmax_over_out",
    "squash",
    "trace",
]
