"""Matrix capsules with EM routing: sums over votes are batched products.

The votes and their squares stand side by side, so that one product has both moments of an M-step,
and one the distances of an E-step; nothing as large as the votes is made in an iteration.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parity.bench.fast.windows import class_votes, cut, matrix_votes, over_all_parents
from parity.reference._parts import Stages, nhwc
from parity.reference.models import MatrixCapsNet


class FastMatrixCapsNet(MatrixCapsNet):
    """`parity.reference.models.MatrixCapsNet`."""

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        maps = nhwc(self.primary_caps.pose(torch.relu(self.features.conv(images))))
        poses, logits = maps.split([self.types * self.dim, self.types], dim=3)
        M, a = poses.unflatten(3, (self.types, self.dim)), torch.sigmoid(logits - 1)
        for layer, windows in zip(self.conv_caps, self.windows, strict=True):
            votes = matrix_votes(cut(windows, M).flatten(1, 3), layer.kernel)
            seen = cut(windows, a).flatten(1).T
            softmax = partial(over_all_parents, windows)
            M, a = route(layer.routing, votes, seen, softmax)
            M, a = (x.unflatten(0, (-1, *windows.counts)) for x in (M, a))
        votes = class_votes(M, self.class_caps.kernel)
        softmax = partial(torch.softmax, dim=1)
        M, a = route(self.class_caps.routing, votes, a.flatten(1), softmax)
        return {"lengths": a}


def route(
    routing: Any, votes: Tensor, activation: Tensor, softmax: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """EM on votes `[N, J, I, D]` and activations `[N, I]`: poses `[N, J, D]`, activations `[N, J]`.

    The softmax is one of logits `[N, J, I]`.
    """
    N, J, I, D = votes.shape  # noqa: E741
    moments = torch.cat([votes, votes**2], dim=3).flatten(0, 1)  # [N J, I, 2 D]
    r = softmax(votes.new_zeros(N, J, I))
    mu = votes.new_zeros(())
    for t in range(1, routing.iterations + 1):
        assigned = r * activation[:, None]
        mass = assigned.sum(dim=2)
        denominator = (mass + 1e-5)[..., None]
        sums = torch.bmm(assigned.view(N * J, 1, I), moments).view(N, J, 2 * D)
        first, second = sums.split(D, dim=2)
        mu = 0.9 * first / denominator + 0.1 * mu
        variance = (second - mu * (2 * first - mass[..., None] * mu)) / denominator + 0.0005
        sum_log_variance = variance.log().sum(dim=2)
        inverse_temperature = routing.inverse_temperature * (1 - 0.95**t)
        entropy = routing.beta_u * D * (1 + math.log(2 * math.pi))
        win = (mass + 1e-5) * (-sum_log_variance - entropy)
        logit = inverse_temperature * (win - 5000 * routing.beta_a)
        if t < routing.iterations:
            weights = torch.cat([-2 * mu, torch.ones_like(mu)], dim=2) / variance.repeat(1, 1, 2)
            distance = torch.bmm(moments, weights.view(N * J, 2 * D, 1)).view(N, J, I)
            constant = sum_log_variance + (mu**2 / variance).sum(dim=2)
            own = functional.logsigmoid(logit) - 0.5 * (D * math.log(2 * math.pi) + constant)
            r = softmax(own[..., None] - 0.5 * distance)
    return mu, torch.sigmoid(logit)
