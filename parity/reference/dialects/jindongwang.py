"""The CapsNet of jindongwang/Pytorch-CapsuleNet and higgsfield/Capsule-Network-Tutorial."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import (
    Dialect,
    Stages,
    class_mask,
    flatten_images,
    group,
    length,
    normal_parameter,
    sequential_decoder,
)
from parity.reference.models.capsnet import squash


class JindongWang(Dialect):
    """CapsNet whose examples share their logits, and whose class capsules are squashed by element.

    - Images are normalised with mean 0.1307 and deviation 0.3081.
    - Primary capsules: K convolutions of T filters, their outputs one after the other (channel
      `T k + t`), flattened as NCHW and cut into pieces of K (order A): a capsule is K neighbouring
      positions, not K channels of one.
    - Squash without epsilon. At exactly zero, where the public code divides zero by zero, the value
      and the gradient are zero here. In the class capsules each component is squashed by itself,
      as a vector of one: `v = |s| s / (1 + s^2)`.
    - Coupling: softmax over the INPUT capsules i. One set of logits for the whole batch, from zero:
      the agreement is the mean over the batch, so results depend on batch mates. Gradients through
      all passes. `b` and `c` are returned with the same numbers for every example.
    - Losses: the margin is not squared; 0.0005 times the MEAN squared error over the pixels.
    - Decoder: the longest capsule, in training too.

    State dict: `conv_layer.conv`, `primary_capsules.capsules.{0..K-1}` `[T, C, 9, 9]`,
    `digit_capsules.W` `[1, I, J, D, K]`, `decoder.reconstraction_layers.{0,2,4}`.

    Not known, and taken from the paper: the margins 0.9 and 0.1, the weight 0.5, and that the
    margin is a sum over classes and a mean over examples. Not known, and taken as the plain ones:
    how lengths are computed, and that the capsule to decode is that of the longest alone. Not
    known, and taken as the images the network saw: whether the reconstruction is compared with
    normalised images.
    """

    input_mean = 0.1307
    input_std = 0.3081
    mask_in_training = "longest"

    def build(self) -> None:
        """Adds the parameters."""
        self.conv_layer = group(conv=self.first_conv())
        self.primary_capsules = group(
            capsules=nn.ModuleList(
                self.primary_conv(self.primary_types) for _ in range(self.primary_dim)
            )
        )
        self.digit_capsules = group(
            W=normal_parameter(
                1, self.in_capsules, self.num_classes, self.class_dim, self.primary_dim
            )
        )
        if self.has_decoder:
            self.decoder = group(
                reconstraction_layers=sequential_decoder(
                    self.decoder_layers(self.num_classes * self.class_dim)
                )
            )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` (labels are ignored) -> intermediates named as in `CapsNet`."""
        conv1 = torch.relu(self.conv_layer.conv(images))
        maps = torch.cat([conv(conv1) for conv in self.primary_capsules.capsules], dim=1)
        primary_s = maps.flatten(1).unflatten(1, (self.in_capsules, self.primary_dim))
        primary_u = squash(primary_s)
        u_hat = torch.einsum("ijdk,bik->bijd", self.digit_capsules.W[0], primary_u)
        stages = {"conv1": conv1, "primary_s": primary_s, "primary_u": primary_u, "u_hat": u_hat}
        stages |= self.route(u_hat)

        v = stages[f"v{self.iterations}"]
        stages["lengths"] = length(v)
        stages["mask"] = class_mask(stages["lengths"], labels=None)
        if self.has_decoder:
            masked = v * stages["mask"][:, :, None]
            stages["reconstruction"] = self.decoder.reconstraction_layers(masked.flatten(1))
        return stages

    def route(self, u_hat: Tensor) -> Stages:
        """Votes `[B, I, J, D]` -> `b`, `c`, `s` and `v` of each pass."""
        stages: Stages = {}
        batch, in_capsules, classes, _ = u_hat.shape
        b = u_hat.new_zeros(in_capsules, classes)  # of the whole batch
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=0)  # over the input capsules i
            s = torch.einsum("ij,bijd->bjd", c, u_hat)
            v = squash(s[..., None], dim=-1)[..., 0]  # each component is a vector of one
            stages |= {
                f"b{r}": b.expand(batch, in_capsules, classes),
                f"c{r}": c.expand(batch, in_capsules, classes),
                f"s{r}": s,
                f"v{r}": v,
            }
            if r < self.iterations:
                b = b + torch.einsum("bijd,bjd->bij", u_hat, v).mean(dim=0)
        return stages

    def losses(self, outputs: Stages, images: Tensor, labels: Tensor) -> Stages:
        """`margin` `[B]` (not squared), `reconstruction` `[B]` (mean over pixels), `total`."""
        lengths = outputs["lengths"]
        T = functional.one_hot(labels, self.num_classes).to(lengths.dtype)
        present = torch.relu(0.9 - lengths)
        absent = torch.relu(lengths - 0.1)
        margin = (T * present + 0.5 * (1 - T) * absent).sum(dim=1)
        if not self.has_decoder:
            return {"margin": margin, "total": margin.mean()}
        error = ((outputs["reconstruction"] - flatten_images(images)) ** 2).mean(dim=1)
        return {
            "margin": margin,
            "reconstruction": error,
            "total": (margin + 0.0005 * error).mean(),
        }
