"""CapsNets in the styles of public PyTorch code that `check --against` once judged wrongly.

`user_module/test_styles.py` copies this file, which knows nothing of this project, to where a user
would have it. The names of tensors are those of the layouts `gram-ai` and `xifengguo`; weights are
fresh, as the constructors of PyTorch draw them.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


def squash(x, epsilon=0.0):
    squared = (x**2).sum(-1, keepdim=True)
    return squared / (1 + squared) * x / (squared.sqrt() + epsilon)


class Convolutions(nn.Module):
    """A convolution for each component of the primary capsules."""

    def __init__(self, features, types, kernel):
        super().__init__()
        self.capsules = nn.ModuleList(nn.Conv2d(features, types, kernel, 2) for _ in range(8))

    def forward(self, x):
        return squash(torch.cat([c(x).view(x.size(0), -1, 1) for c in self.capsules], -1))


class OverInputs(nn.Module):
    """Coupling that sums to one over the input capsules; layer `[J, B, I, 1, D]`."""

    passes = 3

    def __init__(self, inputs, classes=10):
        super().__init__()
        self.route_weights = nn.Parameter(torch.randn(classes, inputs, 8, 16))

    def forward(self, u):
        votes = u[None, :, :, None, :] @ self.route_weights[:, None]
        logits = torch.zeros(*votes.size())
        for number in range(self.passes):
            outputs = squash((logits.softmax(2) * votes).sum(2, keepdim=True))
            if number < self.passes - 1:
                logits = logits + (votes * outputs).sum(-1, keepdim=True)
        return outputs.view(outputs.size(0), u.size(0), -1).permute(1, 0, 2)


class Views(nn.Module):
    """Views after each layer, and a softmax over the input capsules: images `[B, C, S, S]`."""

    slope = 0.0

    def __init__(self, channels=1, side=8, features=6, types=3, kernel=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, kernel)
        self.primary_capsules = Convolutions(features, types, kernel)
        positions = ((side - 2 * kernel + 1) // 2 + 1) ** 2
        self.digit_capsules = OverInputs(types * positions)

    def forward(self, x):
        batch = x.size(0)
        maps = self.conv1(x)
        maps = F.leaky_relu(maps.view(batch, -1), self.slope).view(maps.size())
        return self.digit_capsules(self.primary_capsules(maps))


class Classes(Views):
    """A softmax of the lengths, as the class of `gram-ai` returns it."""

    def forward(self, x):
        return super().forward(x).norm(dim=-1).softmax(-1)


class Leaky(Classes):
    slope = 0.3


class Faint(Views):
    """Short capsules: their softmax is near that of any others, as they are is not."""

    slope = 0.1

    def __init__(self):
        super().__init__(features=16, types=8)
        self.digit_capsules.passes = 2
        self.digit_capsules.route_weights.data *= 0.5

    def forward(self, x):
        return super().forward(x).norm(dim=-1)


class ThreeChannels(Views):
    def __init__(self):
        super().__init__(channels=3)


class AllInputs(Views):
    """1,152 input capsules, whose softmax is as far from float64 in PyTorch as it is here."""

    def __init__(self):
        super().__init__(side=28, features=16, types=32, kernel=9)


class Flat(nn.Module):
    """Capsules cut from flat maps; gradients through the last pass alone, or, wrongly, all."""

    detaches = True

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 9)
        self.primarycaps = nn.ModuleDict({"conv2d": nn.Conv2d(16, 64, 9, 2)})
        self.digitcaps = nn.Module()
        self.digitcaps.weight = nn.Parameter(0.01 * torch.randn(10, 288, 16, 8))

    def forward(self, x):
        maps = self.primarycaps["conv2d"](F.relu(self.conv1(x)))
        u = squash(maps.view(x.size(0), -1, 8), 1e-8)
        votes = torch.squeeze(self.digitcaps.weight @ u[:, None, :, :, None], -1)
        fixed = votes.detach() if self.detaches else votes
        b = torch.zeros(x.size(0), 10, u.size(1))
        for _ in range(2):
            outputs = squash((b.softmax(1)[..., None] * fixed).sum(-2, keepdim=True), 1e-8)
            b = b + (outputs * fixed).sum(-1)
        return squash((b.softmax(1)[..., None] * votes).sum(-2), 1e-8)


class NotDetached(Flat):
    detaches = False
