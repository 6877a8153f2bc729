"""Weights that let every part of a network be seen in its results."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def draw(
    network: nn.Module,
    generator: torch.Generator,
    *,
    biases: bool,
    deviation: Callable[[str, Tensor], float | None],
) -> None:
    """Draws every parameter of a network, in the order of its modules.

    Activations keep their size from layer to layer (He et al. 2015, arXiv:1502.01852).

    Args:
        network: changed in place.
        generator: of the values, float32 numbers that a CPU draws.
        biases: whether dense layers and convolutions have biases, or all are zero.
        deviation: of any other parameter, given its name. None leaves what it starts from, which
            may have to be positive, and adds a little to it.
    """
    for path, module in network.named_modules():
        is_affine = isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        for name, parameter in module.named_parameters(recurse=False):
            drawn = torch.randn(parameter.shape, generator=generator)
            if is_affine and name == "weight":
                is_transposed = isinstance(module, nn.ConvTranspose2d)
                terms = (parameter[:, 0] if is_transposed else parameter[0]).numel()
                parameter.copy_(math.sqrt(2 / terms) * drawn)
            elif is_affine:
                parameter.copy_((0.1 if biases else 0.0) * drawn)
            elif (scale := deviation(f"{path}.{name}".lstrip("."), parameter)) is not None:
                parameter.copy_(scale * drawn)
            else:
                parameter.add_(0.1 * drawn)
