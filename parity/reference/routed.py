"""The paper's CapsNet with another routing in the place of its own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from capsjax import Sizes
from parity.reference._parts import Stages, length
from parity.reference.models.capsnet import CapsNet


class RoutedCapsNet(CapsNet):
    """`CapsNet`, whose class capsules a routing of `parity.reference.routing` makes.

    The routing's parameters are in the state dict under `routing.`, and its stages stand where
    those of dynamic routing do.

    Args:
      make_routing: sizes -> the routing.
      **options: of `CapsNet`.
    """

    def __init__(self, make_routing: Callable[[Sizes], nn.Module], **options: Any) -> None:
        super().__init__(**options)
        sizes = Sizes(self.in_capsules, self.primary_dim, self.num_classes, self.class_dim)
        self.routing = make_routing(sizes)

    def class_capsules(self, u_hat: Tensor, primary_u: Tensor) -> Stages:
        """The stages of the routing; the activation of a primary capsule is its length."""
        # XLA takes numbers below the smallest normal one for zero. As values they make no
        # difference, but the gradient of a length has the length 1, or 0 at zero.
        is_zero = primary_u.abs() < torch.finfo(primary_u.dtype).tiny
        seen = torch.where(is_zero, torch.zeros_like(primary_u), primary_u)
        return self.routing(u_hat, length(seen), primary_u)
