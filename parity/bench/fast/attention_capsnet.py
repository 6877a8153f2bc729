"""Capsules that route by attention: votes as batched products, and of what is given only once."""

import torch
from torch import Tensor
from torch.nn import functional

from parity.bench.fast.parts import normalized, residual
from parity.bench.fast.windows import cut, matrix_votes
from parity.reference._parts import Stages, nhwc
from parity.reference.models import AttentionCapsNet


class FastAttentionCapsNet(AttentionCapsNet):
    """`parity.reference.models.AttentionCapsNet`."""

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        x = functional.relu(normalized(self.backbone.stem, images), inplace=True)
        for block in self.backbone.blocks:
            x = residual(block, x)
        pose = nhwc(self.primary_caps.pose(x)).unflatten(3, (self.types, self.dim))
        primary = self.primary_norm(pose)
        layers = range(len(self.conv_caps) + 1)
        first_votes = self.votes(0, primary)  # of the same poses in every iteration
        poses: list[Tensor] = [primary]
        for index in layers:
            votes = self.votes(index, poses[index]) if index else first_votes
            poses.append(self.attend(index, votes, None))
        for _ in range(1, self.iterations):
            before, poses = poses, [primary]
            for index in layers:
                votes = self.votes(index, before[index]) if index else first_votes
                poses.append(self.attend(index, votes, before[index + 1]))
        logits = self.class_caps.routing.logits(poses[-1])
        return {"lengths": torch.sigmoid(logits), "logits": logits}

    def votes(self, index: int, below: Tensor) -> Tensor:
        """Votes `[N, J, I, D]` of the poses `[B, H, W, types, D]` below a layer."""
        if index == len(self.conv_caps):
            return matrix_votes(below.flatten(1, 3).transpose(0, 1), self.class_caps.kernel)
        seen = cut(self.windows[index], below).flatten(1, 3)
        return matrix_votes(seen, self.conv_caps[index].kernel)

    def attend(self, index: int, votes: Tensor, before: Tensor | None) -> Tensor:
        """One iteration of a layer: its poses, from those that it had before."""
        is_last = index == len(self.conv_caps)
        layer = self.class_caps if is_last else self.conv_caps[index]
        N, J, _, D = votes.shape
        if before is None:
            s = votes.sum(dim=2) / J
        else:
            a = torch.matmul(votes, before.reshape(N, J, D, 1)) * D**-0.5  # [N, J, I, 1]
            r = torch.softmax(a, dim=1)  # already of sum 1
            s = torch.matmul(r.transpose(2, 3), votes).squeeze(2)
        routing = layer.routing
        p = functional.layer_norm(s, (D,), routing.scale, routing.bias, eps=1e-5)
        return p if is_last else p.unflatten(0, (-1, *self.windows[index].counts))
