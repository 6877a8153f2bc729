"""The CapsNet of cedrickchee/capsule-net-pytorch, computed as that project computes it."""

import torch
from torch import Tensor

from parity.reference._parts import NamedDecoder, Stages, group
from parity.reference.models.capsnet import CapsNet, agree, squash


class CedrickChee(CapsNet):
    """CapsNet whose primary squash runs over the capsules, and whose examples share their logits.

    - Images are normalised with mean 0.1307 and deviation 0.3081.
    - Primary capsules: K convolutions of T filters. Convolution `k` gives component `k`, filter
      `t` type `t`; capsule `P t + p` is type `t` at position `p` of P (order D).
    - Squash without epsilon. The primary squash takes its length over all I capsules, for each of
      the K components; that of the class capsules over their D components.
    - Coupling: softmax over the output capsules j. One set of logits for the whole batch, from
      zero: what is added to them is the mean over the batch, so results depend on batch mates.
      Gradients through all passes. `b` and `c` are returned with the same numbers for every
      example.
    - Decoder: the longest capsule, in training too. It draws one channel after the other.

    State dict: `conv1.conv0`, `primary.conv_units.{0..K-1}` `[T, C, 9, 9]`, `digits.weight`
    `[1, I, J, D, K]`, `decoder.fc{1,2,3}`.

    Not known, and taken from the paper: both losses and their weights. Not known, and taken as the
    images the network saw: whether the reconstruction is compared with normalised images.
    """

    input_mean = 0.1307
    input_std = 0.3081
    mask_in_training = "longest"
    draws_channels = True

    def build(self) -> None:
        self.conv1 = group(conv0=self.first_conv())
        self.primary = group(conv_units=self.primary_convs(self.primary_dim, self.primary_types))
        self.digits = group(weight=self.matrices("1ijdk"))
        if self.has_decoder:
            self.decoder = NamedDecoder("fc", self.decoder_layers())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` (labels are ignored) -> intermediates named as in `CapsNet`."""
        conv1 = torch.relu(self.conv1.conv0(images))
        components = [conv(conv1).flatten(1) for conv in self.primary.conv_units]
        primary_s = torch.stack(components, dim=2)
        primary_u = squash(primary_s, dim=1)  # over the capsules
        u_hat = torch.einsum("ijdk,bik->bijd", self.digits.weight[0], primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def route(self, u_hat: Tensor) -> Stages:
        return agree(u_hat, self.iterations, shared=True)
