"""The few hot operations that have more than one implementation."""

from capsjax.ops.convolution import conv_general_dilated

__all__ = ["conv_general_dilated"]
