"""What the references of models have in common: sizes of a tiny network, weights, losses."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from parity.reference._parts import Stages, flatten_images
from train.objective import Objective


class ModelReference(nn.Module):
    """A network in plain PyTorch beside the capsjax model of the same arguments.

    A subclass takes the arguments of the capsjax model, and `iterations` where that has a routing
    that iterates. Its `forward(images, labels)` returns by name, in order of computation:

    - what each of `parts` returns, with axes in capsjax's order: an array under the name of the
      part, capsules as `PART_pose` and `PART_activation`, coupling as `PART_coupling`; dots in a
      part's name become underscores;
    - `capsules`, `coupling`, `lengths`, `logits`, `mask` and `reconstruction` (NHWC), as far as the
      model has them.

    Attributes:
      parts: the attributes of the capsjax model whose results are compared, with dots for members.
      tiny: arguments of a network in which no two sizes are equal that could be confused.
      objective: what it is trained with.
      normalises_batch: whether it has batch normalisation; see `parity.family`.
      normalises_activations: whether what a routing makes activations of is normalised, too.
      longest_sums: terms of the longest sum of the tiny network, forwards for one example and
        backwards for each example of a batch.
    """

    parts: ClassVar[tuple[str, ...]]
    tiny: ClassVar[Mapping[str, Any]]
    objective: ClassVar[Objective] = Objective()
    normalises_batch: ClassVar[bool] = False
    normalises_activations: ClassVar[bool] = False
    longest_sums: ClassVar[tuple[int, int]]

    @classmethod
    def with_iterations(cls, iterations: int) -> dict[str, Any]:
        """Arguments of the reference for a routing with so many iterations; none if it has none."""
        return {}

    @classmethod
    def capsjax_options(cls, iterations: int) -> dict[str, Any]:
        """The same for the capsjax model."""
        return {}

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        """Runs the network on a batch and keeps what it computes on the way."""
        raise NotImplementedError

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The name of the loss that tells classes apart, and it for each example `[B]`."""
        raise NotImplementedError

    def losses(self, stages: Stages, images: Tensor, labels: Tensor) -> Stages:
        """The loss of the classes and of the reconstruction `[B]`, and `total`, their mean."""
        name, told = self.class_loss(stages, labels)
        if "reconstruction" not in stages:
            return {name: told, "total": told.mean()}
        seen = flatten_images(images)
        error = ((stages["reconstruction"].flatten(1) - seen) ** 2).sum(dim=1)
        weight = self.objective.reconstruction_weight
        return {name: told, "reconstruction": error, "total": (told + weight * error).mean()}

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """The deviation of a parameter that is neither a layer's nor a routing's.

        None leaves what it starts from, and adds a little to it.
        """
        return None

    @torch.no_grad()
    def draw(self, generator: torch.Generator, *, biases: bool) -> None:
        """Draws weights that let every part be seen in the results, see `draw_weights`."""
        for path, module in self.named_modules():
            is_affine = isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            for name, parameter in module.named_parameters(recurse=False):
                drawn = torch.randn(parameter.shape, generator=generator)
                deviation = self.deviation(f"{path}.{name}".lstrip("."), parameter)
                if is_affine and name == "weight":
                    is_transposed = isinstance(module, nn.ConvTranspose2d)
                    terms = (parameter[:, 0] if is_transposed else parameter[0]).numel()
                    parameter.copy_(math.sqrt(2 / terms) * drawn)
                elif is_affine:
                    parameter.copy_((0.1 if biases else 0.0) * drawn)
                elif deviation is not None:
                    parameter.copy_(deviation * drawn)
                else:
                    parameter.add_(0.1 * drawn)
