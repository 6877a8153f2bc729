"""The CapsNet of adambielski/CapsNet-pytorch, computed as that project computes it."""

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


class AdamBielski(Dialect):
    """CapsNet with a learned prior on its coupling, four passes and a margin averaged over classes.

    - Primary capsules: one convolution of T K filters. Channel `K t + k` is component `k` of type
      `t`; capsule `P t + p` is type `t` at position `p` of P (order B).
    - Squash without epsilon. At exactly zero, where the public code divides zero by zero, the value
      and the gradient are zero here.
    - Coupling: softmax over the output capsules j. Logits for each example, which start at a
      parameter `b[i, j]` that all examples share. Gradients through all passes, of which there are
      4.
    - Losses: the mean of the squared margin over examples AND classes; 0.0005 times the MEAN
      squared error over the pixels.
    - Decoder: the capsule of the label in training.

    State dict: `capsnet.conv1`, `capsnet.primaryCaps.conv`, `capsnet.digitCaps.weights`
    `[I, K, J * D]`, `capsnet.digitCaps.routing_module.b` `[I, J]`, `reconstruction_net.fc{1,2,3}`.
    Without decoder the first four have no `capsnet.` before them.

    Not known, and taken from the paper: the margins 0.9 and 0.1, the weight 0.5, that the decoder
    sees the longest capsule in test, and that the prior starts at zero. Not known, and taken as the
    plain length: how lengths are computed.
    """

    published_iterations = 4

    def build(self) -> None:
        """Adds the parameters."""
        capsnet = {
            "conv1": self.first_conv(),
            "primaryCaps": group(conv=self.primary_conv(self.primary_types * self.primary_dim)),
            "digitCaps": group(
                weights=normal_parameter(
                    self.in_capsules, self.primary_dim, self.num_classes * self.class_dim
                ),
                routing_module=group(
                    b=nn.Parameter(torch.zeros(self.in_capsules, self.num_classes))
                ),
            ),
        }
        if self.has_decoder:
            self.capsnet = group(**capsnet)
            self.reconstruction_net = NamedDecoder(
                "fc", self.decoder_layers(self.num_classes * self.class_dim)
            )
        else:
            for name, module in capsnet.items():
                self.add_module(name, module)

    @property
    def without_decoder(self) -> nn.Module:
        """What holds the parameters of the convolutions and capsules."""
        return self.capsnet if self.has_decoder else self

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Stages:
        """Images `[B, C, H, W]` and labels `[B]` -> intermediates named as in `CapsNet`."""
        net = self.without_decoder
        conv1 = torch.relu(net.conv1(images))
        maps = net.primaryCaps.conv(conv1).flatten(2)  # [B, T K, positions]
        by_type = maps.unflatten(1, (self.primary_types, self.primary_dim))
        primary_s = by_type.transpose(2, 3).flatten(1, 2)
        primary_u = squash(primary_s)
        weights = net.digitCaps.weights.unflatten(2, (self.num_classes, self.class_dim))
        u_hat = torch.einsum("ikjd,bik->bijd", weights, primary_u)
        stages = {"conv1": conv1, "primary_s": primary_s, "primary_u": primary_u, "u_hat": u_hat}
        stages |= self.route(u_hat)

        v = stages[f"v{self.iterations}"]
        stages["lengths"] = length(v)
        stages["mask"] = class_mask(stages["lengths"], labels)
        if self.has_decoder:
            masked = v * stages["mask"][:, :, None]
            stages["reconstruction"] = self.reconstruction_net(masked.flatten(1))
        return stages

    def route(self, u_hat: Tensor) -> Stages:
        """Votes `[B, I, J, D]` -> `b`, `c`, `s` and `v` of each pass."""
        stages: Stages = {}
        prior = self.without_decoder.digitCaps.routing_module.b
        b = prior.expand(u_hat.shape[:3])
        for r in range(1, self.iterations + 1):
            c = torch.softmax(b, dim=2)
            s = torch.einsum("bij,bijd->bjd", c, u_hat)
            v = squash(s)
            stages |= {f"b{r}": b, f"c{r}": c, f"s{r}": s, f"v{r}": v}
            if r < self.iterations:
                b = b + torch.einsum("bijd,bjd->bij", u_hat, v)
        return stages

    def losses(self, outputs: Stages, images: Tensor, labels: Tensor) -> Stages:
        """`margin` `[B]`, `reconstruction` `[B]` (means over classes, pixels), `total`."""
        lengths = outputs["lengths"]
        T = functional.one_hot(labels, self.num_classes).to(lengths.dtype)
        present = torch.relu(0.9 - lengths) ** 2
        absent = torch.relu(lengths - 0.1) ** 2
        margin = (T * present + 0.5 * (1 - T) * absent).mean(dim=1)
        if not self.has_decoder:
            return {"margin": margin, "total": margin.mean()}
        error = ((outputs["reconstruction"] - flatten_images(images)) ** 2).mean(dim=1)
        return {
            "margin": margin,
            "reconstruction": error,
            "total": (margin + 0.0005 * error).mean(),
        }
