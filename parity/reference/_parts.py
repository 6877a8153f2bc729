"""What the PyTorch references share: sizes, names, lengths, masks and dense decoders.

Everything in which public implementations differ (capsule order, squash, routing, losses) is
written out in the file of each.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Stages = dict[str, Tensor]
"""Intermediates by name, in the order in which they were computed."""


def window_counts(
    image_shape: Sequence[int], conv_kernel: int, primary_kernel: int, primary_stride: int
) -> tuple[int, int]:
    """Height and width of the grid of primary capsules on images `(height, width, channels)`.

    Raises:
      ValueError: the image is not `(height, width, channels)`, or too small for the kernels.
    """
    if len(image_shape) != 3:
        raise ValueError(f"image_shape is (height, width, channels), not {image_shape}")
    height, width = (
        (side - conv_kernel + 1 - primary_kernel) // primary_stride + 1 for side in image_shape[:2]
    )
    if height < 1 or width < 1:
        raise ValueError(
            f"images of {image_shape[0]}x{image_shape[1]} are too small for a {conv_kernel}x"
            f"{conv_kernel} kernel and a {primary_kernel}x{primary_kernel} one above it: choose "
            f"smaller kernels"
        )
    return height, width


def at_least_one(iterations: int) -> int:
    """The number of routing iterations, if it is one; ValueError otherwise."""
    if iterations < 1:
        raise ValueError(f"dynamic routing needs at least 1 iteration, not {iterations}")
    return iterations


class Dialect(nn.Module):
    """The sizes of a public CapsNet: what the constructors of all dialects have in common.

    A dialect adds its parameters under its own names in `build`, computes in `forward` and has its
    losses in `losses`. Images are NCHW, already normalised with the class's `input_mean` and
    `input_std`: the references see what the public networks see.

    Args:
      image_shape: `(height, width, channels)` of one image.
      num_classes: number of class capsules, J.
      conv_features: filters of the first convolution.
      conv_kernel: side of its kernel.
      primary_types: types of primary capsules, T.
      primary_dim: their dimension, K.
      primary_kernel: side of the kernel they are made with.
      primary_stride: its stride.
      class_dim: dimension of the class capsules, D.
      iterations: passes of the routing; None for the published number, `published_iterations`.
      decoder_hidden: sizes of the decoder's hidden layers; None for no decoder.

    Raises:
      ValueError: the image is too small for the kernels, or there is no iteration.

    Attributes:
      input_mean: what the published training subtracts from images in [0, 1].
      input_std: what it divides them by afterwards.
      mask_in_training: which capsule the decoder sees in training: the label's or the longest.
      mask_in_test: the same in test.
      published_iterations: passes of the routing.
    """

    input_mean: float = 0.0
    input_std: float = 1.0
    mask_in_training: Literal["label", "longest"] = "label"
    mask_in_test: Literal["label", "longest"] = "longest"
    published_iterations: int = 3

    def __init__(
        self,
        image_shape: Sequence[int] = (28, 28, 1),
        num_classes: int = 10,
        *,
        conv_features: int = 256,
        conv_kernel: int = 9,
        primary_types: int = 32,
        primary_dim: int = 8,
        primary_kernel: int = 9,
        primary_stride: int = 2,
        class_dim: int = 16,
        iterations: int | None = None,
        decoder_hidden: Sequence[int] | None = (512, 1024),
    ) -> None:
        super().__init__()
        height, width = window_counts(image_shape, conv_kernel, primary_kernel, primary_stride)
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.conv_features = conv_features
        self.conv_kernel = conv_kernel
        self.primary_types = primary_types
        self.primary_dim = primary_dim
        self.primary_kernel = primary_kernel
        self.primary_stride = primary_stride
        self.in_capsules = height * width * primary_types
        self.class_dim = class_dim
        self.iterations = at_least_one(
            self.published_iterations if iterations is None else iterations
        )
        self.decoder_hidden = None if decoder_hidden is None else tuple(decoder_hidden)
        self.build()

    @property
    def has_decoder(self) -> bool:
        """Whether images are reconstructed."""
        return self.decoder_hidden is not None

    def build(self) -> None:
        """Adds the parameters, under the names of the dialect."""
        raise NotImplementedError

    def first_conv(self) -> nn.Conv2d:
        """The convolution from the image to `conv_features` channels."""
        return nn.Conv2d(self.image_shape[2], self.conv_features, self.conv_kernel)

    def primary_conv(self, filters: int) -> nn.Conv2d:
        """A convolution from the features to `filters` channels of primary capsules."""
        return nn.Conv2d(
            self.conv_features, filters, self.primary_kernel, stride=self.primary_stride
        )

    def decoder_layers(self, n_in: int) -> list[nn.Linear]:
        """The dense layers of a decoder that starts from `n_in` numbers; none without decoder."""
        if self.decoder_hidden is None:
            return []
        height, width, channels = self.image_shape
        return dense_layers(n_in, *self.decoder_hidden, height * width * channels)


class NamedDecoder(nn.Module):
    """Dense layers called `<name>1`, `<name>2`, ...: rectifiers between, a sigmoid at the end."""

    def __init__(self, name: str, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"{name}{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs]` -> `[batch, height * width * channels]`."""
        *hidden, last = self.children()
        for layer in hidden:
            x = torch.relu(layer(x))
        return torch.sigmoid(last(x))


def sequential_decoder(layers: Sequence[nn.Linear]) -> nn.Sequential:
    """The same dense layers called `0`, `2`, `4`, ...: the numbers of a `Sequential`."""
    *hidden, last = layers
    steps: list[nn.Module] = []
    for layer in hidden:
        steps += [layer, nn.ReLU()]
    return nn.Sequential(*steps, last, nn.Sigmoid())


def dense_layers(*sizes: int) -> list[nn.Linear]:
    """Dense layers from each size to the next."""
    return [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]


def group(**members: nn.Module | nn.Parameter) -> nn.Module:
    """A module that does nothing but give its members' names a prefix."""
    module = nn.Module()
    for name, member in members.items():
        setattr(module, name, member)
    return module


def normal_parameter(*shape: int) -> nn.Parameter:
    """A parameter from a normal distribution of deviation 0.1; parity is told with loaded ones."""
    return nn.Parameter(0.1 * torch.randn(shape))


def length(v: Tensor) -> Tensor:
    """Euclidean length over the last axis, with a zero gradient at zero.

    Squared and summed in float64, so that no float32 number is too small or too large for it.
    """
    return torch.linalg.vector_norm(v.double(), dim=-1).to(v.dtype)


def batch_norm(x: Tensor, norm: Any) -> Tensor:
    """What a `BatchNorm2d` computes of NCHW maps, in training with an exact mean.

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


def flatten_images(images: Tensor) -> Tensor:
    """NCHW images as rows in the order (y, x, channel), in which decoders here write them."""
    return images.permute(0, 2, 3, 1).flatten(1)
