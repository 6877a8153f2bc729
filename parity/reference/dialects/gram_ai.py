"""The CapsNet of gram-ai/capsule-networks, computed as that project computes it."""

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


class GramAi(Dialect):
    """CapsNet with coupling normalised over the INPUT capsules and the margin of a softmax.

    - Primary capsules: eight convolutions of T filters. Convolution `k` gives component `k`, filter
      `t` type `t`; capsule `P t + p` is type `t` at position `p` of P (order D).
    - Squash without epsilon. At exactly zero, where the public code divides zero by zero, the value
      and the gradient are zero here.
    - Coupling: softmax over the INPUT capsules i. Logits for each example, from zero, with
      gradients through all passes.
    - Margin of the paper, but on `softmax(lengths)` over the classes.
    - Decoder: the capsule of the label in training, that of the largest softmax, which is the
      longest, in test.

    State dict: `conv1`, `primary_capsules.capsules.{0..K-1}` `[T, C, 9, 9]`,
    `digit_capsules.route_weights` `[J, I, K, D]`, `decoder.{0,2,4}`.

    Not known, and taken from the paper: the margins 0.9 and 0.1 and the weight 0.5. Not known, and
    taken as the plain length: how lengths are computed.
    """

    def build(self) -> None:
        """Adds the parameters."""
        self.conv1 = self.first_conv()
        self.primary_capsules = group(
            capsules=nn.ModuleList(
                self.primary_conv(self.primary_types) for _ in range(self.primary_dim)
            )
        )
        self.digit_capsules = group(
            route_weights=normal_parameter(
                self.num_classes, self.in_capsules, self.primary_dim, self.class_dim
            )
        )
        if self.has_decoder:
            self.decoder = sequential_decoder(
                self.decoder_layers(self.num_classes * self.class_dim)
            )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` and labels `[B]` -> intermediates named as in `CapsNet`."""
        conv1 = torch.relu(self.conv1(images))
        components = [conv(conv1).flatten(1) for conv in self.primary_capsules.capsules]
        primary_s = torch.stack(components, dim=2)
        primary_u = squash(primary_s)
        u_hat = torch.einsum("jikd,bik->bijd", self.digit_capsules.route_weights, primary_u)
        stages = {"conv1": conv1, "primary_s": primary_s, "primary_u": primary_u, "u_hat": u_hat}
        stages |= self.route(u_hat)

        v = stages[f"v{self.iterations}"]
        stages["lengths"] = length(v)
        stages["mask"] = class_mask(stages["lengths"], labels)
        if self.has_decoder:
            masked = v * stages["mask"][:, :, None]
            stages["reconstruction"] = self.decoder(masked.flatten(1))
        return stages

    def route(self, u_hat: Tensor) -> Stages:
        """Votes `[B, I, J, D]` -> `b`, `c`, `s` and `v` of each pass."""
        stages: Stages = {}
        b = u_hat.new_zeros(u_hat.shape[:3])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=1)  # over the input capsules i
            s = torch.einsum("bij,bijd->bjd", c, u_hat)
            v = squash(s)
            stages |= {f"b{r}": b, f"c{r}": c, f"s{r}": s, f"v{r}": v}
            if r < self.iterations:
                b = b + torch.einsum("bijd,bjd->bij", u_hat, v)
        return stages

    def losses(self, outputs: Stages, images: Tensor, labels: Tensor) -> Stages:
        """`margin` `[B]` of the softmax, `reconstruction` `[B]` (SSE), `total`."""
        classes = torch.softmax(outputs["lengths"], dim=1)
        T = functional.one_hot(labels, self.num_classes).to(classes.dtype)
        present = torch.relu(0.9 - classes) ** 2
        absent = torch.relu(classes - 0.1) ** 2
        margin = (T * present + 0.5 * (1 - T) * absent).sum(dim=1)
        if not self.has_decoder:
            return {"margin": margin, "total": margin.mean()}
        error = ((outputs["reconstruction"] - flatten_images(images)) ** 2).sum(dim=1)
        return {
            "margin": margin,
            "reconstruction": error,
            "total": (margin + 0.0005 * error).mean(),
        }
