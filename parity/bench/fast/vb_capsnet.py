"""Matrix capsules by variational Bayes: sums over votes are batched products.

As in `parity.bench.fast.matrix_capsnet`, votes and their squares stand side by side.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from parity.bench.fast.parts import normalized
from parity.bench.fast.windows import class_votes, cut, matrix_votes, over_all_parents
from parity.reference._parts import Stages, nhwc
from parity.reference.models import VBCapsNet


class FastVBCapsNet(VBCapsNet):
    """`parity.reference.models.VBCapsNet`."""

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        maps = nhwc(self.primary_caps.pose(torch.relu(normalized(self.features, images))))
        poses, logits = maps.split([self.types * self.dim, self.types], dim=3)
        M = poses.unflatten(3, (self.types, self.dim))
        norm = self.primary_norm
        M, a = normal(M, -2, norm.pose), torch.sigmoid(normal(logits, -1, norm.activation))
        for layer, norm, windows in zip(self.conv_caps, self.conv_norms, self.windows, strict=True):
            votes = matrix_votes(cut(windows, M).flatten(1, 3), layer.kernel)
            seen = cut(windows, a).flatten(1).T
            softmax = partial(over_all_parents, windows)
            M, a = route(layer.routing, votes, seen, softmax)
            M, a = (x.unflatten(0, (-1, *windows.counts)) for x in (M, a))
            M, a = normal(M, -2, norm.pose), torch.sigmoid(normal(a, -1, norm.activation))
        votes = class_votes(M, self.class_caps.kernel)
        softmax = partial(torch.softmax, dim=1)
        _, a = route(self.class_caps.routing, votes, a.flatten(1), softmax)
        a = torch.sigmoid(normal(a, -1, self.class_norm.activation))
        return {"lengths": a, "logits": a}


def normal(x: Tensor, axis: int, norm: Any) -> Tensor:
    """Normalised over all axes but one."""
    first = x.movedim(axis, 1)
    return norm(first.reshape(*first.shape[:2], -1, 1)).view(first.shape).movedim(1, axis)


def route(
    routing: Any, votes: Tensor, activation: Tensor, softmax: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 on votes `[N, J, I, D]` and activations `[N, I]`: `[N, J, D]`, `[N, J]`.

    Activations are left as logits. The softmax is one of logits `[N, J, I]`.
    """
    N, J, I, D = votes.shape  # noqa: E741
    moments = torch.cat([votes, votes**2], dim=3).flatten(0, 1)  # [N J, I, 2 D]
    R = softmax(votes.new_zeros(N, J, I))
    half = torch.arange(D, dtype=votes.dtype, device=votes.device) / 2
    for t in range(1, routing.iterations + 1):
        weight = R * activation[:, None]
        mass = weight.sum(dim=2)
        sums = torch.bmm(weight.view(N * J, 1, I), moments).view(N, J, 2 * D)
        first, second = sums.split(D, dim=2)
        alpha, kappa, nu = 1 + mass, 1 + mass, D + 1 + mass
        m = first / kappa[..., None]
        # Of (10.53) and (10.62): scatter and shift together.
        inverse_psi = 1 + second - first * m
        ln_lambda = D * math.log(2) - inverse_psi.log().sum(dim=2)
        ln_lambda = ln_lambda + torch.digamma(nu[..., None] / 2 - half).sum(dim=2)
        ln_pi = torch.digamma(alpha) - torch.digamma(alpha.sum(dim=1, keepdim=True))
        a = -torch.exp(ln_pi) * (D / 2 * math.log(2 * math.pi * math.e) - ln_lambda / 2)
        if t < routing.iterations:
            weights = torch.cat([-2 * m, torch.ones_like(m)], dim=2) / inverse_psi.repeat(1, 1, 2)
            squares = torch.bmm(moments, weights.view(N * J, 2 * D, 1)).view(N, J, I)
            constant = (m**2 / inverse_psi).sum(dim=2)
            own = ln_pi + (ln_lambda - D * math.log(2 * math.pi) - D / kappa - nu * constant) / 2
            R = softmax(own[..., None] - nu[..., None] / 2 * squares)
    return m, a
