"""The CapsNet of XifengGuo/CapsNet-Keras, in PyTorch: what the Keras model computes."""

import torch
from torch import Tensor

from parity.reference._parts import NamedDecoder, Stages, group
from parity.reference.models.capsnet import CapsNet, agree


def squash(s: Tensor, dim: int = -1) -> Tensor:
    """`|s|^2 / (1 + |s|^2) * s / sqrt(|s|^2 + 1e-7)`, in float64, returned in the dtype of `s`."""
    wide = s.double()
    n_squared = (wide**2).sum(dim=dim, keepdim=True)
    return (n_squared / (1 + n_squared) * wide / torch.sqrt(n_squared + 1e-7)).to(s.dtype)


class XifengGuoKeras(CapsNet):
    """CapsNet as in the paper but for the epsilon of its squash.

    - Primary capsules: one convolution of T K filters. Channel `K t + k` is component `k` of type
      `t`; capsule `T p + t` is type `t` at position `p` (order C, a flattened NHWC output).
    - Squash divides by `sqrt(|s|^2 + 1e-7)`.
    - Coupling: softmax over the output capsules j. Logits for each example, from zero, with
      gradients through all passes.
    - Losses: the paper's margin, and 0.392 times the mean squared error over the pixels: on images
      of 784 pixels the paper's 0.0005 times the sum, on others another number.
    - Decoder: the capsule of the label in training, the longest one in test. It draws one pixel
      after the other, as Keras has images.

    Parameters are called as the Keras layers are, and shaped as PyTorch has them (convolutions
    OIHW, dense layers [out, in]): `conv1`, `primarycap_conv2d`, `digitcaps.W` `[J, I, D, K]`,
    `decoder.dense_{1,2,3}`.

    Lengths are plain ones, as in the project's first versions; since its pull request 83 of
    December 2018 they are `sqrt(|v|^2 + 1e-7)`, which is more by up to 3e-4 where a capsule has
    none, and by 5e-8 of one that is there.

    Not known, and taken from the paper: the margins 0.9 and 0.1 and the weight 0.5. Not known
    either: what the dense layers are called.
    """

    reconstruction_weight = 0.392
    reconstruction_over_pixels = "mean"

    def build(self) -> None:
        self.conv1 = self.first_conv()
        self.primarycap_conv2d = self.primary_conv(self.primary_types * self.primary_dim)
        self.digitcaps = group(W=self.matrices("jidk"))
        if self.has_decoder:
            self.decoder = NamedDecoder("dense_", self.decoder_layers())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        conv1 = torch.relu(self.conv1(images))
        maps = self.primarycap_conv2d(conv1).permute(0, 2, 3, 1)  # NHWC
        primary_s = maps.flatten(1).unflatten(1, (self.in_capsules, self.primary_dim))
        primary_u = squash(primary_s)
        u_hat = torch.einsum("jidk,bik->bijd", self.digitcaps.W, primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def route(self, u_hat: Tensor) -> Stages:
        return agree(u_hat, self.iterations, squash=squash)
