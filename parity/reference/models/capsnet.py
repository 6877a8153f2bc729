"""CapsNet in plain PyTorch: Sabour, Frosst and Hinton 2017, arXiv:1710.09829, line by line."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import (
    Stages,
    at_least_one,
    class_mask,
    dense_layers,
    flatten_images,
    group,
    length,
    normal_parameter,
    sequential_decoder,
    window_counts,
)


def squash(s: Tensor, dim: int = -1, eps: float = 0.0) -> Tensor:
    """Equation 1: `v = |s|^2 / (1 + |s|^2) * s / |s|`, in which `|s|` runs over `dim`.

    Value and gradient at zero are zero, as they are in the limit. Computed in float64 and returned
    in the dtype of `s`, so that squares of float32 numbers neither overflow nor vanish.

    Args:
      s: any shape.
      dim: the axis that holds the components of a vector.
      eps: added to the length that `s` is divided by. 0 in the paper.
    """
    wide = s.double()
    n = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    divisor = n + eps
    direction = wide / torch.where(divisor == 0, torch.ones_like(divisor), divisor)
    return (n**2 / (1 + n**2) * direction).to(s.dtype)


class CapsNet(nn.Module):
    """The network of section 4, with the reconstruction of section 4.1.

    Images are NCHW with values in [0, 1]. Capsules are numbered position by position: channel
    `K t + k` of the primary convolution is component `k` of type `t`, and capsule `T p + t` is the
    one of type `t` at position `p = y * width + x`. Reconstructions are rows in the order
    (y, x, channel), that of a flattened NHWC image, whatever the number of channels; `losses`
    compares them with images in the same order.

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
    `[I, J, D, K]` and `decoder.{0,2,4}.{weight,bias}`.

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
      iterations: iterations of routing.
      decoder_hidden: sizes of the decoder's hidden layers; None for no decoder.
      eps: added to the length that squash divides by; 0 in the paper.

    Raises:
      ValueError: the image is too small for the kernels, or there is no iteration.

    Attributes:
      input_mean: what training subtracts from images in [0, 1].
      input_std: what it divides them by afterwards.
      mask_in_training: whose capsule the decoder sees in training: that of the label.
      mask_in_test: whose in test: the longest.
    """

    input_mean: float = 0.0
    input_std: float = 1.0
    mask_in_training: Literal["label", "longest"] = "label"
    mask_in_test: Literal["label", "longest"] = "longest"

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
        iterations: int = 3,
        decoder_hidden: Sequence[int] | None = (512, 1024),
        eps: float = 0.0,
    ) -> None:
        super().__init__()
        positions = window_counts(image_shape, conv_kernel, primary_kernel, primary_stride)
        height, width, channels = image_shape
        self.primary_types = primary_types
        self.primary_dim = primary_dim
        self.in_capsules = positions[0] * positions[1] * primary_types
        self.num_classes = num_classes
        self.class_dim = class_dim
        self.iterations = at_least_one(iterations)
        self.eps = eps

        self.conv1 = nn.Conv2d(channels, conv_features, conv_kernel)
        self.primary = nn.Conv2d(
            conv_features, primary_types * primary_dim, primary_kernel, stride=primary_stride
        )
        self.class_caps = group(
            weight=normal_parameter(self.in_capsules, num_classes, class_dim, primary_dim)
        )
        self.decoder = (
            None
            if decoder_hidden is None
            else sequential_decoder(
                dense_layers(num_classes * class_dim, *decoder_hidden, height * width * channels)
            )
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Runs the network on a batch and keeps everything it computes on the way.

        Args:
          images: `[B, C, H, W]`.
          labels: `[B]` integers, the classes to decode; without them the longest capsules are.

        Returns:
          The intermediates by name, in order of computation.
        """
        conv1 = torch.relu(self.conv1(images))
        primary_s = self.capsules_of(self.primary(conv1))
        primary_u = squash(primary_s, eps=self.eps)
        # Equation 2: u_hat_j|i = W_ij u_i.
        u_hat = torch.einsum("ijdk,bik->bijd", self.class_caps.weight, primary_u)
        stages = {"conv1": conv1, "primary_s": primary_s, "primary_u": primary_u, "u_hat": u_hat}
        stages |= self.class_capsules(u_hat, primary_u)
        stages["mask"] = class_mask(stages["lengths"], labels)
        if self.decoder is not None:
            masked = stages["capsules"] * stages["mask"][:, :, None]
            stages["reconstruction"] = self.decoder(masked.flatten(1))
        return stages

    def capsules_of(self, maps: Tensor) -> Tensor:
        """Cuts feature maps `[B, T K, H', W']` into capsules `[B, I, K]`."""
        types = []
        for t in range(self.primary_types):
            of_type = maps[:, t * self.primary_dim : (t + 1) * self.primary_dim]
            types.append(of_type.flatten(2).transpose(1, 2))  # [B, positions, K]
        return torch.stack(types, dim=2).flatten(1, 2)

    def class_capsules(self, u_hat: Tensor, primary_u: Tensor) -> Stages:
        """What comes of votes `[B, I, J, D]` and primary capsules `[B, I, K]`: by routing."""
        stages = self.route(u_hat)
        v, c = stages[f"v{self.iterations}"], stages[f"c{self.iterations}"]
        return stages | {"capsules": v, "coupling": c, "lengths": length(v)}

    def route(self, u_hat: Tensor) -> Stages:
        """Procedure 1 on votes `[B, I, J, D]`: `b`, `c`, `s` and `v` of each iteration.

        Its last update of `b`, which nothing uses, is left out.
        """
        stages: Stages = {}
        b = u_hat.new_zeros(u_hat.shape[:3])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=2)  # equation 3, over the output capsules j
            s = torch.einsum("bij,bijd->bjd", c, u_hat)
            v = squash(s, eps=self.eps)
            stages |= {f"b{r}": b, f"c{r}": c, f"s{r}": s, f"v{r}": v}
            if r < self.iterations:
                b = b + torch.einsum("bijd,bjd->bij", u_hat, v)
        return stages

    def losses(self, outputs: Stages, images: Tensor, labels: Tensor) -> Stages:
        """Equation 4 and section 4.1.

        Args:
          outputs: what `forward` returned.
          images: `[B, C, H, W]`, what it was given.
          labels: `[B]` integers.

        Returns:
          `margin` `[B]`, summed over classes; `reconstruction` `[B]`, the summed squared error of
          an image (absent without decoder); `total`, the mean over examples of
          `margin + 0.0005 * reconstruction`.
        """
        lengths = outputs["lengths"]
        T = functional.one_hot(labels, self.num_classes).to(lengths.dtype)
        present = torch.relu(0.9 - lengths) ** 2
        absent = torch.relu(lengths - 0.1) ** 2
        margin = (T * present + 0.5 * (1 - T) * absent).sum(dim=1)
        if self.decoder is None:
            return {"margin": margin, "total": margin.mean()}
        error = ((outputs["reconstruction"] - flatten_images(images)) ** 2).sum(dim=1)
        return {
            "margin": margin,
            "reconstruction": error,
            "total": (margin + 0.0005 * error).mean(),
        }
