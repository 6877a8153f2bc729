"""The CapsNet of laubonghaudoi/CapsNet_guide_PyTorch, computed as that project computes it."""

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


class LaubongHaudoi(Dialect):
    """CapsNet as in the paper but for its decoder, which sees D numbers: the chosen capsule alone.

    - Primary capsules: T convolutions of K filters. Convolution `t` gives type `t`, filter `k`
      component `k`; capsule `T p + t` is type `t` at position `p` (order C).
    - Squash without epsilon. At exactly zero, where the public code divides zero by zero, the value
      and the gradient are zero here.
    - Coupling: softmax over the output capsules j. Logits for each example, from zero, with
      gradients through all passes.
    - Decoder: the masked capsules are summed over the classes, which leaves the D numbers of one.
      It is the capsule of the label, also in test.

    State dict: `Conv1`, `PrimaryCaps.capsules.{0..T-1}` `[K, C, 9, 9]`, `DigitCaps.W`
    `[1, I, J, K, D]`, `Decoder.fc{1,2,3}`, with `Decoder.fc1.weight` of `[512, D]`.

    Not known, and taken from the paper: both losses and their weights. Not known, and taken as the
    plain length: how lengths are computed. Not known, and taken from the paper: what is decoded
    where there are no labels, the longest capsule.
    """

    mask_in_test = "label"

    def build(self) -> None:
        """Adds the parameters."""
        self.Conv1 = self.first_conv()
        self.PrimaryCaps = group(
            capsules=nn.ModuleList(
                self.primary_conv(self.primary_dim) for _ in range(self.primary_types)
            )
        )
        self.DigitCaps = group(
            W=normal_parameter(
                1, self.in_capsules, self.num_classes, self.primary_dim, self.class_dim
            )
        )
        if self.has_decoder:
            self.Decoder = NamedDecoder("fc", self.decoder_layers(self.class_dim))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` and labels `[B]` -> intermediates named as in `CapsNet`."""
        conv1 = torch.relu(self.Conv1(images))
        # [B, positions, K] of each type
        types = [conv(conv1).flatten(2).transpose(1, 2) for conv in self.PrimaryCaps.capsules]
        primary_s = torch.stack(types, dim=2).flatten(1, 2)
        primary_u = squash(primary_s)
        u_hat = torch.einsum("ijkd,bik->bijd", self.DigitCaps.W[0], primary_u)
        stages = {"conv1": conv1, "primary_s": primary_s, "primary_u": primary_u, "u_hat": u_hat}
        stages |= self.route(u_hat)

        v = stages[f"v{self.iterations}"]
        stages["lengths"] = length(v)
        stages["mask"] = class_mask(stages["lengths"], labels)
        if self.has_decoder:
            masked = v * stages["mask"][:, :, None]
            stages["reconstruction"] = self.Decoder(masked.sum(dim=1))
        return stages

    def route(self, u_hat: Tensor) -> Stages:
        """Votes `[B, I, J, D]` -> `b`, `c`, `s` and `v` of each pass."""
        stages: Stages = {}
        b = u_hat.new_zeros(u_hat.shape[:3])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=2)
            s = torch.einsum("bij,bijd->bjd", c, u_hat)
            v = squash(s)
            stages |= {f"b{r}": b, f"c{r}": c, f"s{r}": s, f"v{r}": v}
            if r < self.iterations:
                b = b + torch.einsum("bijd,bjd->bij", u_hat, v)
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
