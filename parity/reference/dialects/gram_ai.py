"""The CapsNet of gram-ai/capsule-networks, computed as that project computes it."""

import torch
from torch import Tensor

from parity.reference._parts import Stages, group, margins, sequential_decoder
from parity.reference.models.capsnet import CapsNet, agree, squash


class GramAi(CapsNet):
    """CapsNet with coupling normalised over the INPUT capsules and the margin of a softmax.

    - Primary capsules: eight convolutions of T filters. Convolution `k` gives component `k`, filter
      `t` type `t`; capsule `P t + p` is type `t` at position `p` of P (order D).
    - Squash without epsilon.
    - Coupling: softmax over the INPUT capsules i. Logits for each example, from zero, with
      gradients through all passes.
    - Margin of the paper, but on `softmax(lengths)` over the classes.
    - Decoder: the capsule of the label in training, that of the largest softmax, which is the
      longest, in test. It draws one channel after the other.

    State dict: `conv1`, `primary_capsules.capsules.{0..K-1}` `[T, C, 9, 9]`,
    `digit_capsules.route_weights` `[J, I, K, D]`, `decoder.{0,2,4}`.

    Not known, and taken from the paper: the margins 0.9 and 0.1 and the weight 0.5.
    """

    draws_channels = True

    def build(self) -> None:
        self.conv1 = self.first_conv()
        capsules = self.primary_convs(self.primary_dim, self.primary_types)
        self.primary_capsules = group(capsules=capsules)
        self.digit_capsules = group(route_weights=self.matrices("jikd"))
        if self.has_decoder:
            self.decoder = sequential_decoder(self.decoder_layers())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        conv1 = torch.relu(self.conv1(images))
        components = [conv(conv1).flatten(1) for conv in self.primary_capsules.capsules]
        primary_s = torch.stack(components, dim=2)
        primary_u = squash(primary_s)
        u_hat = torch.einsum("jikd,bik->bijd", self.digit_capsules.route_weights, primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def route(self, u_hat: Tensor) -> Stages:
        return agree(u_hat, self.iterations, over=-2)  # the input capsules i

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The margin loss `[B]` of a softmax of the lengths."""
        return "margin", margins(torch.softmax(stages["lengths"], dim=1), labels).sum(dim=1)
