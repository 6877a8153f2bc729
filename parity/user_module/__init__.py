"""Somebody's own PyTorch module beside capsjax: calling it, comparing it, and why it differs."""

from typing import Literal

InputLayout = Literal["nchw", "nhwc", "flat"]
INPUT_LAYOUTS: tuple[InputLayout, ...] = ("nchw", "nhwc", "flat")
"""How a module may want its images, tried in this order."""

SIDES = (28, 8, 32)
"""Sides of the images of MNIST, of the embedded digits and of CIFAR-10, tried in this order."""
