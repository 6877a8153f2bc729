"""The CapsNet of jindongwang/Pytorch-CapsuleNet and higgsfield/Capsule-Network-Tutorial."""

import torch
from torch import Tensor
from torch.nn import functional

from parity.reference._parts import Stages, group, sequential_decoder
from parity.reference.models.capsnet import CapsNet, agree, squash


class JindongWang(CapsNet):
    """CapsNet whose examples share their logits, and whose class capsules are squashed by element.

    - Images are normalised with mean 0.1307 and deviation 0.3081.
    - Primary capsules: K convolutions of T filters, their outputs one after the other (channel
      `T k + t`), flattened as NCHW and cut into pieces of K (order A): a capsule is K neighbouring
      positions, not K channels of one.
    - Squash without epsilon. In the class capsules each component is squashed by itself, as a
      vector of one: `v = |s| s / (1 + s^2)`.
    - Coupling: softmax over the INPUT capsules i. One set of logits for the whole batch, from zero:
      what is added to them is the mean over the batch, so results depend on batch mates. Gradients
      through all passes. `b` and `c` are returned with the same numbers for every example.
    - Losses: the margin is not squared; 0.0005 times the MEAN squared error over the pixels.
    - Decoder: the longest capsule, in training too. It draws one channel after the other.

    Otherwise than in the public code: there a softmax of the lengths over the BATCH comes before
    the choice of the capsule to decode, so that it is that of the class in which an image has the
    largest share of all, and not always the longest. That does not change the class that is told.

    State dict: `conv_layer.conv`, `primary_capsules.capsules.{0..K-1}` `[T, C, 9, 9]`,
    `digit_capsules.W` `[1, I, J, D, K]`, `decoder.reconstraction_layers.{0,2,4}`.

    Not known, and taken from the paper: the margins 0.9 and 0.1, the weight 0.5, and that the
    margin is a sum over classes and a mean over examples. Not known, and taken as the images the
    network saw: whether the reconstruction is compared with normalised images.
    """

    input_mean = 0.1307
    input_std = 0.3081
    mask_in_training = "longest"
    draws_channels = True
    reconstruction_over_pixels = "mean"

    def build(self) -> None:
        self.conv_layer = group(conv=self.first_conv())
        capsules = self.primary_convs(self.primary_dim, self.primary_types)
        self.primary_capsules = group(capsules=capsules)
        self.digit_capsules = group(W=self.matrices("1ijdk"))
        if self.has_decoder:
            self.decoder = group(reconstraction_layers=sequential_decoder(self.decoder_layers()))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` (labels are ignored) -> intermediates named as in `CapsNet`."""
        conv1 = torch.relu(self.conv_layer.conv(images))
        maps = torch.cat([conv(conv1) for conv in self.primary_capsules.capsules], dim=1)
        primary_s = maps.flatten(1).unflatten(1, (self.in_capsules, self.primary_dim))
        primary_u = squash(primary_s)
        u_hat = torch.einsum("ijdk,bik->bijd", self.digit_capsules.W[0], primary_u)
        return self.with_classes(conv1, primary_s, primary_u, u_hat, labels)

    def route(self, u_hat: Tensor) -> Stages:
        return agree(
            u_hat,
            self.iterations,
            shared=True,
            over=-2,  # the input capsules i
            squash=lambda s: squash(s[..., None])[..., 0],  # each component is a vector of one
        )

    def decode(self, masked: Tensor) -> Tensor:
        return self.decoder.reconstraction_layers(masked.flatten(1))

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        """The margin loss of each example `[B]`, not squared."""
        lengths = stages["lengths"]
        T = functional.one_hot(labels, self.num_classes).to(lengths.dtype)
        present, absent = torch.relu(0.9 - lengths), torch.relu(lengths - 0.1)
        return "margin", (T * present + 0.5 * (1 - T) * absent).sum(dim=1)
