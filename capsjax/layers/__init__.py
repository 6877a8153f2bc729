"""Capsule layers: modules that make capsules or votes, and hand the votes to a routing."""

from capsjax.layers.convolutional import ClassCaps, ConvCaps, ConvPrimaryCaps, GridShape
from capsjax.layers.convolutional_3d import Conv3dCaps
from capsjax.layers.decoder import Decoder
from capsjax.layers.deconvolution import ConvDecoder
from capsjax.layers.dense import DenseCaps
from capsjax.layers.features import ConvFeatures
from capsjax.layers.primary import PrimaryCaps
from capsjax.layers.residual import ResidualFeatures
from capsjax.layers.step import Step

__all__ = [
    "ClassCaps",
    "Conv3dCaps",
    "ConvCaps",
    "ConvDecoder",
    "ConvFeatures",
    "ConvPrimaryCaps",
    "Decoder",
    "DenseCaps",
    "GridShape",
    "PrimaryCaps",
    "ResidualFeatures",
    "Step",
]
