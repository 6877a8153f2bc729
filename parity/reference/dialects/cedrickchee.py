"""The CapsNet of cedrickchee/capsule-net-pytorch, computed as that project computes it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import (
    Dialect,
    NamedDecoder,
    Stages,
    class_mask,
    flatten_images,
    group,
    length,
    normal_parameter,
)
from parity.reference.models.capsnet import squash


class CedrickChee(Dialect):
    """CapsNet whose primary squash runs over the capsules, and whose examples share their logits.

    - Images are normalised with mean 0.1307 and deviation 0.3081.
    - Primary capsules: K convolutions of T filters. Convolution `k` gives component `k`, filter
      `t` type `t`; capsule `P t + p` is type `t` at position `p` of P (order D).
    - Squash without epsilon. At exactly zero, where the public code divides zero by zero, the value
      and the gradient are zero here. The primary squash takes its length over all I capsules, for
      each of the K components; that of the class capsules over their D components.
    - Coupling: softmax over the output capsules j. One set of logits for the whole batch, from
      zero: the agreement is the mean over the batch, so results depend on batch mates. Gradients
      through all passes. `b` and `c` are returned with the same numbers for every example.
    - Decoder: the longest capsule, in training too.

    State dict: `conv1.conv0`, `primary.conv_units.{0..K-1}` `[T, C, 9, 9]`, `digits.weight`
    `[1, I, J, D, K]`, `decoder.fc{1,2,3}`.

    Not known, and taken from the paper: both losses and their weights. Not known, and taken as the
    plain length: how lengths are computed. Not known, and taken as the images the network saw:
    whether the reconstruction is compared with normalised images.
    """

    input_mean = 0.1307
    input_std = 0.3081
    mask_in_training = "longest"

    def build(self) -> None:
        """Adds the parameters."""
        self.conv1 = group(conv0=self.first_conv())
        self.primary = group(
            conv_units=nn.ModuleList(
                self.primary_conv(self.primary_types) for _ in range(self.primary_dim)
            )
        )
        self.digits = group(
            weight=normal_parameter(
                1, self.in_capsules, self.num_classes, self.class_dim, self.primary_dim
            )
        )
        if self.has_decoder:
            self.decoder = NamedDecoder(
                "fc", self.decoder_layers(self.num_classes * self.class_dim)
            )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` (labels are ignored) -> intermediates named as in `CapsNet`."""
        conv1 = torch.relu(self.conv1.conv0(images))
        components = [conv(conv1).flatten(1) for conv in self.primary.conv_units]
        primary_s = torch.stack(components, dim=2)
        primary_u = squash(primary_s, dim=1)  # over the capsules
        u_hat = torch.einsum("ijdk,bik->bijd", self.digits.weight[0], primary_u)
        stages = {"conv1": conv1, "primary_s": primary_s, "primary_u": primary_u, "u_hat": u_hat}
        stages |= self.route(u_hat)

        v = stages[f"v{self.iterations}"]
        stages["lengths"] = length(v)
        stages["mask"] = class_mask(stages["lengths"], labels=None)
        if self.has_decoder:
            masked = v * stages["mask"][:, :, None]
            stages["reconstruction"] = self.decoder(masked.flatten(1))
        return stages

    def route(self, u_hat: Tensor) -> Stages:
        """Votes `[B, I, J, D]` -> `b`, `c`, `s` and `v` of each pass."""
        stages: Stages = {}
        batch, in_capsules, classes, _ = u_hat.shape
        b = u_hat.new_zeros(in_capsules, classes)  # of the whole batch
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=1)
            s = torch.einsum("ij,bijd->bjd", c, u_hat)
            v = squash(s)
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
        """The paper's: `margin` `[B]`, `reconstruction` `[B]` (SSE), `total`."""
        lengths = outputs["lengths"]
        T = functional.one_hot(labels, self.num_classes).to(lengths.dtype)
        present = torch.relu(0.9 - lengths) ** 2
        absent = torch.relu(lengths - 0.1) ** 2
        margin = (T * present + 0.5 * (1 - T) * absent).sum(dim=1)
        if not self.has_decoder:
            return {"margin": margin, "total": margin.mean()}
        error = ((outputs["reconstruction"] - flatten_images(images)) ** 2).sum(dim=1)
        return {
            "margin": margin,
            "reconstruction": error,
            "total": (margin + 0.0005 * error).mean(),
        }
