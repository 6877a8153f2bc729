"""Shared parts of the PyTorch references: losses, weights, sizes, names, masks and decoders.

Everything in which public implementations differ (capsule order, squash, further losses, what their
routing does otherwise than Procedure 1) is told in the file of each.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Stages = dict[str, Tensor]
"""Intermediates by name, in the order in which they were computed."""


class Sizes(NamedTuple):
    """Sizes of a routing: `I` capsules of `K` numbers below, `J` of `D` numbers above."""

    in_capsules: int
    in_dim: int
    out_capsules: int
    out_dim: int


class Reference(nn.Module):
    """A network in plain PyTorch, what it minimises, and weights to compare it with.

    Its `forward` takes images NCHW, already normalised, and labels, and returns everything that it
    computes by name. Losses are those of Sabour, Frosst and Hinton 2017 where a network has no
    others.
    """

    # Which capsule a decoder sees in test.
    mask_in_test: ClassVar[Literal["label", "longest"]] = "longest"
    input_mean: ClassVar[float] = 0.0  # what the training subtracts from images in [0, 1]
    input_std: ClassVar[float] = 1.0  # what it divides them by afterwards
    reconstruction_weight: ClassVar[float] = 0.0005  # of the error of a reconstruction
    # Whether that error is the sum or the mean of the squared ones.
    reconstruction_over_pixels: ClassVar[Literal["sum", "mean"]] = "sum"
    # Of another network than CapsNet, the attributes of the capsjax model whose results are
    # compared, with dots for members.
    parts: ClassVar[tuple[str, ...]] = ()
    # Parameters of the capsjax model on which in training nothing depends: biases that the next
    # normalisation takes off again.
    idle: ClassVar[tuple[str, ...]] = ()

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The name of the loss that tells classes apart, and it for each example `[B]`.

        Here the margin loss, equation 4, summed over the classes.
        """
        return "margin", margins(stages["lengths"], labels).sum(dim=1)

    def losses(self, stages: Stages, images: Tensor, labels: Tensor) -> Stages:
        """Of what `forward` returned for images `[B, C, H, W]` and labels `[B]`, the losses.

        The loss of the classes `[B]` under its name; `reconstruction` `[B]`, the squared error of
        an image (absent without decoder); `total`, the mean over examples of the first and the
        weighted second.
        """
        name, of_classes = self.class_loss(stages, labels)
        if "reconstruction" not in stages:
            return {name: of_classes, "total": of_classes.mean()}
        # Images as rows in the order (y, x, channel), in which decoders here write them.
        squares = (stages["reconstruction"].flatten(1) - nhwc(images).flatten(1)) ** 2
        is_sum = self.reconstruction_over_pixels == "sum"
        error = squares.sum(dim=1) if is_sum else squares.mean(dim=1)
        total = (of_classes + self.reconstruction_weight * error).mean()
        return {name: of_classes, "reconstruction": error, "total": total}

    def deviation(self, name: str) -> float | None:
        """The deviation of a parameter that is no weight or bias of a convolution or dense layer.

        None leaves what it starts from, which may have to be positive, and adds a little to it.
        """
        return None

    @torch.no_grad()
    def draw(self, generator: torch.Generator, *, biases: bool) -> None:
        """Draws weights that let every part be seen in the results, in the order of the modules.

        Activations keep their size from layer to layer (He et al. 2015, arXiv:1502.01852). Without
        biases, those of dense layers and convolutions are zero.
        """
        for path, module in self.named_modules():
            is_affine = isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            for name, parameter in module.named_parameters(recurse=False):
                drawn = torch.randn(parameter.shape, generator=generator)
                if is_affine and name == "weight":
                    is_transposed = isinstance(module, nn.ConvTranspose2d)
                    terms = (parameter[:, 0] if is_transposed else parameter[0]).numel()
                    parameter.copy_(math.sqrt(2 / terms) * drawn)
                elif is_affine:
                    parameter.copy_((0.1 if biases else 0.0) * drawn)
                elif (scale := self.deviation(f"{path}.{name}".lstrip("."))) is not None:
                    parameter.copy_(scale * drawn)
                else:
                    parameter.add_(0.1 * drawn)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after some training
                mean, var = module.running_mean, module.running_var
                mean.copy_(0.1 * torch.randn(mean.shape, generator=generator))
                var.copy_(0.5 + torch.rand(var.shape, generator=generator))


def margins(lengths: Tensor, labels: Tensor) -> Tensor:
    """Sabour, Frosst and Hinton 2017, equation 4: the loss of each class, `[B, J]`."""
    T = functional.one_hot(labels, lengths.shape[1]).to(lengths.dtype)
    present, absent = torch.relu(0.9 - lengths) ** 2, torch.relu(lengths - 0.1) ** 2
    return T * present + 0.5 * (1 - T) * absent


def numbered(iteration: int, **symbols: Tensor) -> Stages:
    """Stages of one iteration of a routing: `b` of the second one is called `b2`."""
    return {f"{symbol}{iteration}": value for symbol, value in symbols.items()}


def rectified(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Dense layers one after the other: rectifiers between, a sigmoid at the end."""
    *hidden, last = layers
    for layer in hidden:
        x = torch.relu(layer(x))
    return torch.sigmoid(last(x))


class NamedDecoder(nn.Module):
    """Dense layers called `<name>1`, `<name>2`, ...: rectifiers between, a sigmoid at the end."""

    def __init__(self, name: str, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"{name}{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs]` -> `[batch, height * width * channels]`."""
        return rectified(self.children(), x)


def sequential_decoder(layers: Sequence[nn.Linear]) -> nn.Sequential:
    """Dense layers as in `NamedDecoder`, called `0`, `2`, `4`, ... as in a `Sequential`."""
    *hidden, last = layers
    rectified = [module for layer in hidden for module in (layer, nn.ReLU())]
    return nn.Sequential(*rectified, last, nn.Sigmoid())


def dense_layers(*sizes: int) -> list[nn.Linear]:
    """Dense layers from each size to the next."""
    return [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]


def group(**members: nn.Module | nn.Parameter) -> Any:
    """A module that does nothing but give its members' names a prefix."""
    module = nn.Module()
    for name, member in members.items():
        setattr(module, name, member)
    return module


def zeros(*shape: int) -> nn.Parameter:
    """A parameter that `draw` gives its values."""
    return nn.Parameter(torch.zeros(shape))


def length(v: Tensor) -> Tensor:
    """Euclidean length over the last axis, with a zero gradient at zero.

    Squared and summed in float64, so that no float32 number is too small or too large for it.
    """
    return torch.linalg.vector_norm(v.double(), dim=-1).to(v.dtype)


def batch_norm(x: Tensor, norm: Any) -> Tensor:
    """Normalises NCHW maps as a `BatchNorm2d` does, in training with an exact mean.

    PyTorch's own mean of equal numbers differs from them by its rounding, also in float64, and the
    division by a deviation near zero makes that visible.
    """
    if not norm.training:
        return norm(x)
    axes = (0, 2, 3)
    mean = x.mean(dim=axes, keepdim=True)
    mean = mean + (x - mean).mean(dim=axes, keepdim=True)
    var = ((x - mean) ** 2).mean(dim=axes, keepdim=True)
    normal = (x - mean) / torch.sqrt(var + norm.eps)
    if not norm.affine:
        return normal
    return normal * norm.weight[None, :, None, None] + norm.bias[None, :, None, None]


def class_mask(lengths: Tensor, labels: Tensor | None) -> Tensor:
    """`[batch, classes]`, 1 at the label, or at the longest capsule where there are no labels."""
    shown = lengths.argmax(dim=1) if labels is None else labels
    return functional.one_hot(shown, lengths.shape[1]).to(lengths.dtype)


def drawn_by_channel(rows: Tensor, image_shape: Sequence[int]) -> Tensor:
    """Images drawn one channel after the other, `[B, C H W]` -> NHWC, as capsjax has them."""
    height, width, channels = image_shape
    return nhwc(rows.unflatten(1, (channels, height, width)))


def nhwc(maps: Tensor) -> Tensor:
    """Feature maps NCHW -> NHWC, as capsjax has them."""
    return maps.permute(0, 2, 3, 1)
