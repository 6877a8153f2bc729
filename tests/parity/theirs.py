"""A CapsNet as somebody else might have written it, in several dialects; and its weights' names.

`user_module/test_checking.py` copies this file, which knows nothing of this project, to where a
user would have it.
"""

import torch
import torch.nn.functional as F  # noqa: N812

LAYOUT = """
weights = [
  ["stem_w", "features.conv.kernel", "f c y x -> y x c f"],
  ["stem_b", "features.conv.bias", "f -> f"],
  ["caps_w", "primary_caps.conv.kernel", "(t k) f y x -> y x f (t k)"],
  ["caps_b", "primary_caps.conv.bias", "(t k) -> (t k)"],
  ["routes", "class_caps.kernel", "1 i j d k -> i j d k"],
]
"""

BIASED = LAYOUT.replace("[", '[\n  ["bias", "class_caps.routing.bias", "j d -> j d"],', 1)
BIASED += '[options]\nrouting = "dynamic-bias"\n'

TYPES, PRIMARY_DIM, CLASSES, DIM, POSITIONS = 3, 4, 5, 6, 6


class Caps(torch.nn.Module):
    """Images `[B, 2, 8, 6]` -> poses `[B, 5, 6, 1]`: 3 x 2 positions of 3 types, 18 capsules."""

    softmax = 2  # of [B, I, J, 1, 1]: over the class capsules
    rounds = 3
    detach = False
    squash_of = 3  # of [B, 1, J, D, 1]: the pose
    mean, deviation = 0.0, 1.0
    in_squash = 0.0
    slope = 0.0
    by_column = False
    grouping = (TYPES, PRIMARY_DIM)

    def __init__(self):
        super().__init__()
        capsules = TYPES * POSITIONS
        self.stem_w = torch.nn.Parameter(torch.zeros(8, 2, 3, 3))
        self.stem_b = torch.nn.Parameter(torch.zeros(8))
        self.caps_w = torch.nn.Parameter(torch.zeros(TYPES * PRIMARY_DIM, 8, 2, 2))
        self.caps_b = torch.nn.Parameter(torch.zeros(TYPES * PRIMARY_DIM))
        self.routes = torch.nn.Parameter(torch.zeros(1, capsules, CLASSES, DIM, PRIMARY_DIM))

    def squash(self, x, dim):
        squared = (x**2).sum(dim, keepdim=True)
        return squared / (1 + squared) * x / (squared.sqrt() + self.in_squash)

    def stem_kernel(self):
        return self.stem_w

    def norm(self, maps):
        return maps

    def offset(self):
        return 0

    def primary(self, maps):
        return maps.view(len(maps), TYPES, PRIMARY_DIM, POSITIONS).permute(0, 3, 1, 2)

    def poses(self, x):
        x = (x - self.mean) / self.deviation
        x = F.leaky_relu(self.norm(F.conv2d(x, self.stem_kernel(), self.stem_b)), self.slope)
        maps = F.conv2d(x, self.caps_w, self.caps_b, stride=2)
        if self.by_column:
            maps = maps.transpose(2, 3).contiguous()
        u = self.primary(maps).reshape(len(x), -1, 1, PRIMARY_DIM, 1)
        votes = self.routes @ self.squash(u, 3)
        frozen = votes.detach() if self.detach else votes
        b = torch.zeros(len(x), TYPES * POSITIONS, CLASSES, 1, 1)
        for i in range(self.rounds):
            used = votes if i == self.rounds - 1 else frozen
            s = (b.softmax(self.softmax) * used).sum(1, keepdim=True) + self.offset()
            v = self.squash(s, self.squash_of)
            b = b + (frozen * v).sum(3, keepdim=True)
        return v.squeeze(1)

    def forward(self, x):
        return self.poses(x)


class ChannelsLast(Caps):
    """Images NHWC, and poses `[J, B, D]` in a tuple with something else."""

    def forward(self, x):
        v = self.poses(x.permute(0, 3, 1, 2).contiguous())
        return {"capsules": {"pose": v[..., 0].transpose(0, 1)}, "mean": v.mean()}


class WithLabels(Caps):
    """Needs labels; lengths and the lengths of the labels' classes, both `[B, J]`."""

    def forward(self, x, labels):
        lengths = self.poses(x).norm(dim=2).squeeze(-1)
        return lengths, lengths * F.one_hot(labels, CLASSES)


class Lengths(Caps):
    def forward(self, x):
        return self.poses(x).squeeze(-1).norm(dim=-1)


class Halved(Lengths):
    def forward(self, x):
        return super().forward(x).half()


class Detached(Caps):
    detach = True


class NoGradient(Caps):
    @torch.no_grad()
    def forward(self, x):
        return self.poses(x)


class OverInputs(Caps):
    softmax = 1


class OverInputsTwice(OverInputs):
    rounds = 2


class OverInputsTwiceDetached(OverInputsTwice):
    detach = True


class ElementByElement(Caps):
    squash_of = 4


class Normalising(Caps):
    mean, deviation = 0.1307, 0.3081


class SoftmaxOfLengths(Lengths):
    def forward(self, x):
        return super().forward(x).softmax(-1)


class NormalisingWithEpsilon(Normalising):
    """Lengths that PyTorch can differentiate at zero."""

    def forward(self, x):
        return (self.poses(x).square().sum(2).squeeze(-1) + 1e-7).sqrt()


class TypeMajor(Caps):
    def primary(self, maps):
        return maps.view(len(maps), TYPES, PRIMARY_DIM, POSITIONS).transpose(2, 3)


class Flat(Caps):
    def primary(self, maps):
        return maps


class Regrouped(Caps):
    def primary(self, maps):
        return maps.view(len(maps), PRIMARY_DIM, TYPES, POSITIONS).permute(0, 3, 2, 1)


class Biased(Caps):
    """Class capsules have a bias; its names are those of `BIASED`."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.linspace(-1, 1, CLASSES * DIM).view(CLASSES, DIM))

    def offset(self):
        return self.bias[:, :, None]


class BiasedOverInputs(Biased):
    softmax = 1


class Leaky(Caps):
    slope = 0.3


class OneByOne(Caps):
    def norm(self, maps):
        return F.instance_norm(maps)


class ByColumn(Caps):
    by_column = True


class Swapped(Caps):
    def stem_kernel(self):
        return self.stem_w.transpose(2, 3)


class FourAtOnce(OverInputsTwice, TypeMajor):
    slope = 0.2


class NormalisingFlat(Normalising, Flat):
    pass


class WithEpsilon(Caps):
    in_squash = 1e-5


class WithTwoEpsilons(Lengths):
    in_squash = 1e-5

    def forward(self, x):
        return (self.poses(x).squeeze(-1).square().sum(-1) + 1e-6).sqrt()


class HalfDetached(Caps):
    def forward(self, x):
        v = self.poses(x)
        return (v + v.detach()) / 2


class Unknown(Caps):
    def squash(self, x, dim):
        return x.sin()


class Needy(Caps):
    def __init__(self, size):
        super().__init__()


class Wider(Caps):
    def __init__(self):
        super().__init__()
        self.stem_b = torch.nn.Parameter(torch.zeros(9))
        self.more = torch.nn.Parameter(torch.zeros(1))


class QuitsAtOnce(Caps):
    def __init__(self):
        raise SystemExit(0)


class Quitter(Caps):
    def forward(self, x):
        raise SystemExit(0)


class NotFinite(Lengths):
    """In float32 alone."""

    def forward(self, x):
        return super().forward(x) / (0 if x.dtype == torch.float32 else 1)


class Coarse(Lengths):
    """It computes in bfloat16 what it was given in float32."""

    def forward(self, x):
        if x.dtype == torch.float64:
            return super().forward(x)
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()


class Grumpy(Caps):
    def forward(self, x):
        raise RuntimeError("not today\nnor tomorrow")


class NoCapsules(Caps):
    def forward(self, x):
        return x.sum(), [x.flatten(1)]


class SomethingElse:
    pass
