"""CapsNet in PyTorch written for speed: the same network as the reference, no step spelt out."""

import torch
from torch import Tensor
from torch.nn import functional

from parity.reference import CapsNet


class FastCapsNet(CapsNet):
    """`parity.reference.CapsNet`, its arguments and its state dict, in products of matrices.

    Votes of all examples are one batched product, each routing iteration two, and nothing is kept
    that the backward pass does not need. Names of sizes: B examples, I primary capsules of K
    dimensions and T types, J class capsules of D.
    """

    def forward(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Images `[B, C, H, W]` -> `lengths` `[B, J]` and `reconstruction` `[B, H W C]`."""
        primary = self.primary(torch.relu(self.conv1(images)))
        # [B, T K, y, x] -> [I, B, K], capsule by position and then type.
        u = primary.permute(2, 3, 1, 0).reshape(-1, self.primary_dim, len(images)).transpose(1, 2)
        weight = self.class_caps.weight.flatten(1, 2)  # [I, J D, K]
        u_hat = torch.bmm(squash(u), weight.transpose(1, 2))  # [I, B, J D]
        u_hat = u_hat.view(*u_hat.shape[:2], self.num_classes, self.class_dim).permute(1, 2, 0, 3)
        v = agree(u_hat, self.iterations)
        lengths = v.norm(dim=-1)
        shown = lengths.argmax(dim=1) if labels is None else labels
        mask = functional.one_hot(shown, self.num_classes).to(v.dtype)
        return {"lengths": lengths, "reconstruction": self.decode(v * mask[:, :, None])}


def agree(u_hat: Tensor, iterations: int) -> Tensor:
    """Routes votes `[B, J, I, D]` to class capsules `[B, J, D]`."""
    v = squash(u_hat.sum(dim=2) / u_hat.shape[1])  # all coupling coefficients are equal
    b = torch.zeros((), device=v.device)
    for _ in range(1, iterations):
        b = b + torch.matmul(u_hat, v[..., None])  # [B, J, I, 1]
        c = torch.softmax(b, dim=1)
        v = squash(torch.matmul(c.transpose(2, 3), u_hat).squeeze(2))
    return v


def squash(s: Tensor) -> Tensor:
    """Equation 1 over the last axis."""
    n = s.norm(dim=-1, keepdim=True)
    return s * (n / (1 + n**2))
