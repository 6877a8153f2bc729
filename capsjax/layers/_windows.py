"""How many windows of a convolution fit on an image."""

from collections.abc import Sequence

from capsjax import _checks
from capsjax.ops.patches import Windows


def window_counts(
    image_shape: Sequence[int], kernel_size: int, stride: int, what: str
) -> tuple[int, int]:
    """Output height and width of an unpadded convolution over `(height, width, ...)`."""
    kernel_size = _checks.positive_integer("kernel_size", kernel_size)
    stride = _checks.positive_integer("stride", stride)
    height, width = Windows((image_shape[0], image_shape[1]), kernel_size, stride).counts
    if height < 1 or width < 1:
        raise ValueError(
            f"{what} with a {kernel_size}x{kernel_size} kernel does not fit on an input of "
            f"{image_shape[0]}x{image_shape[1]}: choose a smaller kernel"
        )
    return height, width
