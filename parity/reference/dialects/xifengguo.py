"""The CapsNet of XifengGuo/CapsNet-Pytorch, computed as that project computes it."""

import torch
from torch import Tensor

from parity.reference._parts import Stages, group, numbered, sequential_decoder
from parity.reference.models.capsnet import CapsNet


def squash(s: Tensor, dim: int = -1) -> Tensor:
    """`|s|^2 / (1 + |s|^2) * s / (|s| + 1e-8)`, in float64, returned in the dtype of `s`."""
    wide = s.double()
    n = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    return (n**2 / (1 + n**2) * wide / (n + 1e-8)).to(s.dtype)


class XifengGuo(CapsNet):
    """CapsNet whose routing has a gradient in its last pass only.

    - Primary capsules: one convolution of T K filters, whose flattened NCHW output is cut into
      pieces of K (order A): a capsule is K neighbouring positions, not K channels of one.
    - Squash divides by `|s| + 1e-8`.
    - Coupling: softmax over the output capsules j. Logits for each example, from zero. All passes
      but the last see votes without gradient, so the coupling of the last pass has none either.
    - Losses: the paper's margin, and 0.392 times the mean squared error over the pixels: on images
      of 784 pixels the paper's 0.0005 times the sum, on others another number.
    - Decoder: the capsule of the label in training, the longest one in test. It draws one channel
      after the other.

    State dict: `conv1`, `primarycaps.conv2d`, `digitcaps.weight` `[J, I, D, K]`,
    `decoder.{0,2,4}`.

    Not known, and taken from the paper: the margins 0.9 and 0.1 and the weight 0.5.
    """

    reconstruction_weight = 0.392
    reconstruction_over_pixels = "mean"
    draws_channels = True

    def build(self) -> None:
        self.conv1 = self.first_conv()
        self.primarycaps = group(conv2d=self.primary_conv(self.primary_types * self.primary_dim))
        self.digitcaps = group(weight=self.matrices("jidk"))
        if self.has_decoder:
            self.decoder = sequential_decoder(self.decoder_layers())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        conv1 = torch.relu(self.conv1(images))
        maps = self.primarycaps.conv2d(conv1)
        primary_s = maps.flatten(1).unflatten(1, (self.in_capsules, self.primary_dim))
        primary_u = squash(primary_s)
        u_hat = torch.einsum("jidk,bik->bijd", self.digitcaps.weight, primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def route(self, u_hat: Tensor) -> Stages:
        stages: Stages = {}
        b = u_hat.new_zeros(u_hat.shape[:3])
        for r in range(1, self.iterations + 1):
            votes = u_hat if r == self.iterations else u_hat.detach()
            c = torch.softmax(b, dim=2)
            s = torch.einsum("bij,bijd->bjd", c, votes)
            v = squash(s)
            stages |= numbered(r, b=b, c=c, s=s, v=v)
            if r < self.iterations:
                b = b + torch.einsum("bijd,bjd->bij", u_hat.detach(), v)
        return stages
