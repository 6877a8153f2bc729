"""Capsule networks for accelerators, in JAX and Flax."""

from capsjax.capsules import Capsules, norm, squash
from capsjax.layers import ConvFeatures, Decoder, DenseCaps, PrimaryCaps
from capsjax.losses import margin_loss, reconstruction_loss
from capsjax.models import CapsNet, CapsNetOutput, create_model, list_models
from capsjax.routing import (
    DynamicRouting,
    Routed,
    Routing,
    create_routing,
    list_routings,
    route,
)

__version__ = "0.1.0"

__all__ = [
    "CapsNet",
    "CapsNetOutput",
    "Capsules",
    "ConvFeatures",
    "Decoder",
    "DenseCaps",
    "DynamicRouting",
    "PrimaryCaps",
    "Routed",
    "Routing",
    "create_model",
    "create_routing",
    "list_models",
    "list_routings",
    "margin_loss",
    "norm",
    "reconstruction_loss",
    "route",
    "squash",
]
