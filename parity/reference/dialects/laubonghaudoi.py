"""The CapsNet of laubonghaudoi/CapsNet_guide_PyTorch, computed as that project computes it."""

import torch
from torch import Tensor

from parity.reference._parts import NamedDecoder, Stages, group
from parity.reference.models.capsnet import CapsNet, squash


class LaubongHaudoi(CapsNet):
    """CapsNet as in the paper but for its decoder, which sees D numbers: the chosen capsule alone.

    - Primary capsules: T convolutions of K filters. Convolution `t` gives type `t`, filter `k`
      component `k`; capsule `T p + t` is type `t` at position `p` (order C).
    - Squash without epsilon. Coupling: softmax over the output capsules j.
    - Decoder: the masked capsules are summed over the classes, which leaves the D numbers of one.
      It is the capsule of the label, also in test. It draws one channel after the other.

    State dict: `Conv1`, `PrimaryCaps.capsules.{0..T-1}` `[K, C, 9, 9]`, `DigitCaps.W`
    `[1, I, J, K, D]`, `Decoder.fc{1,2,3}`, with `Decoder.fc1.weight` of `[512, D]`.

    Not known, and taken from the paper: both losses and their weights, and what is decoded where
    there are no labels, the longest capsule.
    """

    mask_in_test = "label"
    draws_channels = True

    def build(self) -> None:
        self.Conv1 = self.first_conv()
        self.PrimaryCaps = group(capsules=self.primary_convs(self.primary_types, self.primary_dim))
        self.DigitCaps = group(W=self.matrices("1ijkd"))
        if self.has_decoder:
            self.Decoder = NamedDecoder("fc", self.decoder_layers(self.class_dim))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        conv1 = torch.relu(self.Conv1(images))
        # [B, P, K] of each type
        types = [conv(conv1).flatten(2).transpose(1, 2) for conv in self.PrimaryCaps.capsules]
        primary_s = torch.stack(types, dim=2).flatten(1, 2)
        primary_u = squash(primary_s)
        u_hat = torch.einsum("ijkd,bik->bijd", self.DigitCaps.W[0], primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def decode(self, masked: Tensor) -> Tensor:
        return self.Decoder(masked.sum(dim=1))
