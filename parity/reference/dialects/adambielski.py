"""The CapsNet of adambielski/CapsNet-pytorch, computed as that project computes it."""

from typing import Any

import torch
from torch import Tensor, nn

from parity.reference._parts import NamedDecoder, Stages, group, margins, zeros
from parity.reference.models.capsnet import CapsNet, agree, squash


class AdamBielski(CapsNet):
    """CapsNet with a learned prior on its coupling, four passes and a margin averaged over classes.

    - Primary capsules: one convolution of T K filters. Channel `K t + k` is component `k` of type
      `t`; capsule `P t + p` is type `t` at position `p` of P (order B).
    - Squash without epsilon.
    - Coupling: softmax over the output capsules j. Logits for each example, which start at a
      parameter `b[i, j]` that all examples share. Gradients through all passes, of which there are
      4.
    - Losses: the mean of the squared margin over examples AND classes; 0.0005 times the MEAN
      squared error over the pixels.
    - Decoder: the capsule of the label, in test too. It draws one channel after the other.

    State dict: `capsnet.conv1`, `capsnet.primaryCaps.conv`, `capsnet.digitCaps.weights`
    `[I, K, J * D]`, `capsnet.digitCaps.routing_module.b` `[I, J]`, `reconstruction_net.fc{1,2,3}`.
    Without decoder the first four have no `capsnet.` before them.

    Taken from the paper: what is decoded where there are no labels, the longest capsule.
    """

    published_iterations = 4
    draws_channels = True
    mask_in_test = "label"
    reconstruction_over_pixels = "mean"

    def build(self) -> None:
        net = {
            "conv1": self.first_conv(),
            "primaryCaps": group(conv=self.primary_conv(self.primary_types * self.primary_dim)),
            "digitCaps": group(
                weights=nn.Parameter(self.matrices("ikjd").detach().flatten(2)),
                routing_module=group(b=zeros(self.in_capsules, self.num_classes)),
            ),
        }
        if self.has_decoder:
            self.capsnet = group(**net)
            self.reconstruction_net = NamedDecoder("fc", self.decoder_layers())
        else:
            for name, module in net.items():
                self.add_module(name, module)

    @property
    def without_decoder(self) -> Any:
        """The module with the parameters of the convolutions and capsules."""
        return self.capsnet if self.has_decoder else self

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        net = self.without_decoder
        conv1 = torch.relu(net.conv1(images))
        maps = net.primaryCaps.conv(conv1).flatten(2)  # [B, T K, P]
        by_type = maps.unflatten(1, (self.primary_types, self.primary_dim))
        primary_s = by_type.transpose(2, 3).flatten(1, 2)
        primary_u = squash(primary_s)
        weights = net.digitCaps.weights.unflatten(2, (self.num_classes, self.class_dim))
        u_hat = torch.einsum("ikjd,bik->bijd", weights, primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def route(self, u_hat: Tensor) -> Stages:
        prior = self.without_decoder.digitCaps.routing_module.b
        return agree(u_hat, self.iterations, b=prior.expand(u_hat.shape[:3]))

    def decode(self, masked: Tensor) -> Tensor:
        return self.reconstruction_net(masked.flatten(1))

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The margin loss of each example `[B]`, its mean over the classes."""
        return "margin", margins(stages["lengths"], labels).mean(dim=1)
