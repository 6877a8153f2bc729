"""What the references of models have in common: sizes of a tiny network, weights, losses."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Stages, dense_layers, flatten_images
from parity.reference.drawing import draw
from train.learn.objective import Objective


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
      published_iterations: of the routing, with which the network is compared.
      normalises_batch: whether it has batch normalisation; see `parity.check.family`.
      pools: whether the largest of several values is passed on; see there, too.
      shows_rounding: whether, on images that are alike, a normalisation makes the rounding of
        equal numbers as large as what they are compared by.
      idle: parameters of the capsjax model on which in training nothing depends: biases that the
        next normalisation takes off again.
      longest_sums: terms of the longest sum of the tiny network, forwards for one example and
        backwards for each example of a batch.
    """

    parts: ClassVar[tuple[str, ...]]
    tiny: ClassVar[Mapping[str, Any]]
    objective: ClassVar[Objective] = Objective()
    published_iterations: ClassVar[int] = 3
    normalises_batch: ClassVar[bool] = False
    pools: ClassVar[bool] = False
    shows_rounding: ClassVar[bool] = False
    idle: ClassVar[tuple[str, ...]] = ()
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
        """The name of the loss that tells classes apart, and it for each example `[B]`.

        Here the margin loss of Sabour, Frosst and Hinton 2017, equation 4.
        """
        lengths = stages["lengths"]
        T = functional.one_hot(labels, lengths.shape[1]).to(lengths.dtype)
        present, absent = torch.relu(0.9 - lengths) ** 2, torch.relu(lengths - 0.1) ** 2
        return "margin", (T * present + 0.5 * (1 - T) * absent).sum(dim=1)

    def losses(self, stages: Stages, images: Tensor, labels: Tensor) -> Stages:
        """The loss of the classes and of the reconstruction `[B]`, and `total`, their mean."""
        name, told = self.class_loss(stages, labels)
        if "reconstruction" not in stages:
            return {name: told, "total": told.mean()}
        seen = flatten_images(images)
        error = ((stages["reconstruction"].flatten(1) - seen) ** 2).sum(dim=1)
        weight = self.objective.settings.reconstruction_weight
        return {name: told, "reconstruction": error, "total": (told + weight * error).mean()}

    def deviation(self, name: str, parameter: Tensor) -> float | None:
        """The deviation of a parameter that is neither a layer's nor a routing's.

        None leaves what it starts from, and adds a little to it.
        """
        return None

    def draw(self, generator: torch.Generator, *, biases: bool) -> None:
        """Draws weights that let every part be seen in the results, see `drawing`."""
        draw(self, generator, biases=biases, deviation=self.deviation)


class DenseDecoder(nn.Module):
    """Dense layers, named as in capsjax: rectifiers between, a sigmoid at the end.

    Args:
      inputs: numbers that the first one sees.
      hidden: sizes of the layers between.
      image_shape: `(height, width, channels)`.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], image_shape: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.layers = nn.ModuleList(dense_layers(inputs, *hidden, math.prod(image_shape)))

    def forward(self, capsules: Tensor, mask: Tensor) -> Tensor:
        """Poses `[B, J, D]` and a mask `[B, J]` -> images NHWC."""
        x = (capsules * mask[:, :, None]).flatten(1)
        *hidden, last = self.layers
        for layer in hidden:
            x = torch.relu(layer(x))
        return torch.sigmoid(last(x)).reshape(len(x), *self.image_shape)


def class_stages(routed: Stages) -> Stages:
    """What a routing returned, as the part `class_caps` and as the network's result."""
    return {
        "class_caps_pose": routed["capsules"],
        "class_caps_activation": routed["lengths"],
        "class_caps_coupling": routed["coupling"],
        "capsules": routed["capsules"],
        "coupling": routed["coupling"],
        "lengths": routed["lengths"],
    }
