"""The base of routings that iterate, and the usual softmax."""

import torch
from torch import Tensor, nn

from parity.reference._parts import Sizes


class Routing(nn.Module):
    """A routing with iterations.

    Args:
      sizes: what is connected.
      iterations: how often the output is computed.
    """

    def __init__(self, sizes: Sizes, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations


def over_parents(logits: Tensor) -> Tensor:
    """The softmax over the output capsules in sight: `[B, I, J]` -> `[B, I, J]`."""
    return torch.softmax(logits, dim=2)
