"""Capsule layers: modules that make capsules or votes, and hand the votes to a routing."""

from capsjax.layers.convolutional import ClassCaps, ConvCaps, ConvPrimaryCaps, GridShape
from capsjax.layers.decoder import Decoder
from capsjax.layers.dense import DenseCaps
from capsjax.layers.features import ConvFeatures
from capsjax.layers.primary import PrimaryCaps
from capsjax.layers.residual import ResidualFeatures
from capsjax.layers.step import Step

__all__ = [
    "ClassCaps",
    "ConvCaps",
    "ConvFeatures",
    "ConvPrimaryCaps",
    "Decoder",
    "DenseCaps",
    "GridShape",
    "PrimaryCaps",
    "ResidualFeatures",
    "Step",
]
