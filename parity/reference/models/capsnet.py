"""CapsNet in plain PyTorch: Sabour, Frosst and Hinton 2017, arXiv:1710.09829, line by line."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from parity.reference._parts import (
    Reference,
    Sizes,
    Stages,
    class_mask,
    dense_layers,
    drawn_by_channel,
    group,
    length,
    numbered,
    sequential_decoder,
)


def squash(s: Tensor, dim: int = -1) -> Tensor:
    """Equation 1: `v = |s|^2 / (1 + |s|^2) * s / |s|`, in which `|s|` runs over `dim`.

    Value and gradient at zero are zero, as they are in the limit. Computed in float64 and returned
    in the dtype of `s`, so that squares of float32 numbers neither overflow nor vanish.
    """
    wide = s.double()
    n = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    direction = wide / torch.where(n == 0, torch.ones_like(n), n)
    return (n**2 / (1 + n**2) * direction).to(s.dtype)


def agree(
    u_hat: Tensor,
    iterations: int,
    *,
    b: Tensor | None = None,
    shared: bool = False,
    over: int = -1,
    squash: Callable[[Tensor], Tensor] = squash,
) -> Stages:
    """Procedure 1 on votes `[B, I, J, D]`: `b`, `c`, `s` and `v` of each iteration.

    Its last update of `b`, which nothing uses, is left out. Logits start at `b` `[B, I, J]`, or
    zeros. If they are `shared`, there is one set for the whole batch, and what is added to them is
    the mean over it; `b` and `c` are returned with the same numbers for every example. The softmax
    is `over` the axis -1 of the output capsules j, or -2 of the input capsules i.
    """
    stages: Stages = {}
    of_each = u_hat.shape[:3]
    if b is None:
        b = u_hat.new_zeros(of_each[1:] if shared else of_each)
    for r in range(1, iterations + 1):
        c = torch.softmax(b, dim=over)  # equation 3
        s = torch.einsum("ij,bijd->bjd" if shared else "bij,bijd->bjd", c, u_hat)
        v = squash(s)
        stages |= numbered(r, b=b.expand(of_each), c=c.expand(of_each), s=s, v=v)
        if r < iterations:
            agreement = torch.einsum("bijd,bjd->bij", u_hat, v)
            b = b + (agreement.mean(dim=0) if shared else agreement)
    return stages


class CapsNet(Reference):
    """The network of section 4, with the reconstruction of section 4.1.

    Images are NCHW with values in [0, 1]. Capsules are numbered position by position: channel
    `K t + k` of the primary convolution is component `k` of type `t`, and capsule `T p + t` is the
    one of type `t` at position `p = y * width + x`. Reconstructions are rows in the order
    (y, x, channel), that of a flattened NHWC image, whatever the number of channels and the order
    in which a dialect's decoder draws; `losses` compares them with images in the same order.

    `forward` returns its intermediates by name:

    | name | shape | what |
    |---|---|---|
    | conv1 | [B, C, H, W] | first convolution after the rectifier |
    | primary_s, primary_u | [B, I, K] | primary capsules before and after squash |
    | u_hat | [B, I, J, D] | votes |
    | b1, c1, b2, c2, ... | [B, I, J] | logits at the start of each iteration, coupling |
    | s1, v1, s2, v2, ... | [B, J, D] | class capsules of each iteration before and after squash |
    | capsules, coupling | [B, J, D], [B, I, J] | the last v and c |
    | lengths, mask | [B, J] | length of the last v; 1 for the capsule that is decoded |
    | reconstruction | [B, H W C] | absent without decoder |

    The state dict has `conv1.{weight,bias}`, `primary.{weight,bias}`, `class_caps.weight`
    `[I, J, D, K]` and `decoder.{0,2,4}.{weight,bias}`. A dialect of it adds its parameters under
    its own names in `build`, and computes in its own `forward` up to the votes.

    The arguments are those of `capsjax.CapsNet`, and the iterations of the routing; None for the
    published number. Images too small for the kernels are a ValueError, and so is no iteration.
    """

    # Which capsule the decoder sees in training.
    mask_in_training: Literal["label", "longest"] = "label"
    published_iterations: int = 3  # of the routing
    # Whether the decoder draws all pixels of a channel before the next, as PyTorch has images.
    draws_channels: bool = False

    decoder: nn.Module

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
        self.image_shape, self.num_classes, self.class_dim = image_shape, num_classes, class_dim
        self.conv_features, self.conv_kernel = conv_features, conv_kernel
        self.primary_types, self.primary_dim = primary_types, primary_dim
        self.primary_kernel, self.primary_stride = primary_kernel, primary_stride
        height, width = window_counts(image_shape, conv_kernel, primary_kernel, primary_stride)
        self.in_capsules = height * width * primary_types
        self.iterations = self.published_iterations if iterations is None else iterations
        if self.iterations < 1:
            raise ValueError(f"dynamic routing needs at least 1 iteration, not {iterations}")
        self.decoder_hidden = decoder_hidden
        self.build()

    def build(self) -> None:
        """Adds the parameters, under the names of the implementation."""
        self.conv1 = self.first_conv()
        self.primary = self.primary_conv(self.primary_types * self.primary_dim)
        self.class_caps = group(weight=self.matrices("ijdk"))
        if self.has_decoder:
            self.decoder = sequential_decoder(self.decoder_layers())

    def first_conv(self) -> nn.Conv2d:
        """The convolution from the image to `conv_features` channels."""
        return nn.Conv2d(self.image_shape[2], self.conv_features, self.conv_kernel)

    def primary_conv(self, filters: int) -> nn.Conv2d:
        """A convolution from the features to `filters` channels of primary capsules."""
        return nn.Conv2d(
            self.conv_features, filters, self.primary_kernel, stride=self.primary_stride
        )

    def primary_convs(self, number: int, filters: int) -> nn.ModuleList:
        """Several such convolutions side by side."""
        return nn.ModuleList(self.primary_conv(filters) for _ in range(number))

    def matrices(self, axes: str) -> nn.Parameter:
        """Matrices from primary capsules to votes, with the axes `i`, `j`, `k`, `d` and `1`."""
        sizes = {"i": self.in_capsules, "j": self.num_classes, "k": self.primary_dim, "1": 1}
        shape = [sizes.get(axis, self.class_dim) for axis in axes]
        return nn.Parameter(0.1 * torch.randn(shape))

    @property
    def has_decoder(self) -> bool:
        """Whether images are reconstructed."""
        return self.decoder_hidden is not None

    def decoder_layers(self, n_in: int | None = None) -> list[nn.Linear]:
        """The dense layers of a decoder that starts from all class capsules, or `n_in` numbers."""
        assert self.decoder_hidden is not None
        n_in = self.num_classes * self.class_dim if n_in is None else n_in
        return dense_layers(n_in, *self.decoder_hidden, math.prod(self.image_shape))

    def deviation(self, name: str) -> float | None:
        """Logits of the routing that differ by about one, and lengths around the margins.

        With initial values as they are drawn for training, the votes are so small that hardly
        anything is routed. A class capsule is a sum of I votes, each with a weight of 1 / J.
        """
        of_capsules = self.num_classes / (3 * math.sqrt(self.in_capsules))
        return None if name.startswith("routing.") else of_capsules

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` and labels `[B]` -> everything computed, by name, in order.

        Labels are the classes to decode; without them the longest capsules are.
        """
        conv1 = torch.relu(self.conv1(images))
        by_type = self.primary(conv1).unflatten(1, (self.primary_types, self.primary_dim))
        primary_s = by_type.permute(0, 3, 4, 1, 2).flatten(1, 3)
        primary_u = squash(primary_s)
        # Equation 2: u_hat_j|i = W_ij u_i.
        u_hat = torch.einsum("ijdk,bik->bijd", self.class_caps.weight, primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def with_classes(
        self,
        conv1: Tensor,
        primary_s: Tensor,
        primary_u: Tensor,
        u_hat: Tensor,
        labels: Tensor | None,
    ) -> Stages:
        """Adds to these stages those of the class capsules, the mask and the reconstruction."""
        stages = {"conv1": conv1, "primary_s": primary_s, "primary_u": primary_u, "u_hat": u_hat}
        stages |= self.class_capsules(u_hat, primary_u)
        decoded = labels if self.mask_in_training == "label" else None
        stages["mask"] = class_mask(stages["lengths"], decoded)
        if self.has_decoder:
            drawn = self.decode(stages["capsules"] * stages["mask"][:, :, None])
            if self.draws_channels:
                drawn = drawn_by_channel(drawn, self.image_shape).flatten(1)
            stages["reconstruction"] = drawn
        return stages

    def class_capsules(self, u_hat: Tensor, primary_u: Tensor) -> Stages:
        """Routes votes `[B, I, J, D]` of primary capsules `[B, I, K]`; the stages of doing so."""
        stages = self.route(u_hat)
        v, c = stages[f"v{self.iterations}"], stages[f"c{self.iterations}"]
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}

    def route(self, u_hat: Tensor) -> Stages:
        """Votes `[B, I, J, D]` -> `b`, `c`, `s` and `v` of each iteration."""
        return agree(u_hat, self.iterations)

    def decode(self, masked: Tensor) -> Tensor:
        """Class capsules `[B, J, D]`, all but one of them zero -> a row as the decoder draws it."""
        return self.decoder(masked.flatten(1))


class RoutedCapsNet(CapsNet):
    """`CapsNet`, whose class capsules a routing of `parity.reference.routing` makes.

    The routing's parameters are in the state dict under `routing.`, and its stages stand where
    those of dynamic routing do.
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


def window_counts(
    image_shape: Sequence[int], conv_kernel: int, primary_kernel: int, primary_stride: int
) -> tuple[int, int]:
    """Height and width of the grid of primary capsules on images `(height, width, channels)`.

    A ValueError if they are none, or too small for the kernels.
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
