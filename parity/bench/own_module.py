"""A module that a user wrote, with the `forward` and the `losses` of a reference."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.bench.work import Work
from parity.reference._parts import Stages
from parity.user_module.calling import Call, View, calls, find_capsules, make_module, tensors_in
from train.system.errors import UserError

_IMAGES = 7
"""In the call that finds out how: neither a number of classes nor a dimension."""


class OwnModule(nn.Module):
    """The module of `FILE.py:NAME`, called as `parity check --against` calls it.

    It is trained by the loss of the work's network, given the lengths of its capsules, as logits
    too where that has such; and given its reconstruction, if one of its outputs is as large as an
    image.

    Args:
      spec: `FILE.py:NAME`, whose code is run.
      work: what it is to do.
      plain: the class of the reference of the work's network.
      output: which output holds capsule lengths or poses; None for the only one with their shape.

    Raises:
        UserError: it cannot be made or called, or not one of its outputs is of that shape.
    """

    labels: Tensor

    def __init__(self, spec: str, work: Work, plain: Any, output: str | None = None) -> None:
        super().__init__()
        self.module = make_module(spec)
        with torch.device("meta"):  # for its loss alone
            self.losses = plain(**work.arguments).losses
        dim = next((work.options[n] for n in ("class_dim", "pose_dim") if n in work.options), 0)
        self.num_classes, self.dim = work.num_classes, dim
        self.pixels = math.prod(work.images.shape[1:])
        call, view = self._first_call(spec, work, output)
        self.layout, self.output = call.layout, view.name
        self.label_axes = [argument.ndim for argument in call.arguments]
        self.register_buffer("labels", torch.from_numpy(work.labels).long())
        loss = "loss" if self._image(call.outputs) is not None else "loss without reconstruction"
        seen = f"given {call.how}; {view.name or 'its output'} as {view.what}"
        self.how = f"{seen}, trained by the {loss} of {work.model}"

    def _first_call(self, spec: str, work: Work, output: str | None) -> tuple[Call, View]:
        sizes = (self.num_classes, self.dim)
        images = work.images[:1].repeat(_IMAGES, axis=0).astype(np.float32) / 255
        labels = work.labels[:1].repeat(_IMAGES)
        failures: list[str] = []
        misfit: UserError | None = None
        for call in calls(self.module.eval(), images, labels, work.num_classes, None, failures):
            try:
                return call, find_capsules(call.outputs, output, (_IMAGES, *sizes))
            except UserError as error:
                misfit = misfit or error
        raise misfit or UserError(
            f"{spec} cannot be called with images of {work.model} ({failures[0]}; "
            f"{len(failures) - 1} other ways failed, too)."
        )

    def forward(self, images: Tensor, labels: Tensor | None) -> Stages:
        """Images `[B, C, H, W]` and labels `[B]` -> what `losses` takes; as in the first call."""
        labels = self.labels if labels is None else labels
        one_hot = functional.one_hot(labels, self.num_classes).to(images.dtype)
        arguments = [labels if axes == 1 else one_hot for axes in self.label_axes]
        seen = {"nchw": images, "nhwc": images.permute(0, 2, 3, 1), "flat": images.flatten(1)}
        outputs = dict(tensors_in(self.module(seen[self.layout], *arguments)))
        view = find_capsules(outputs, self.output, (len(images), self.num_classes, self.dim))
        lengths = view.tensor if view.what == "lengths" else view.tensor.norm(dim=-1)
        stages = {"lengths": lengths, "logits": lengths}
        if (drawn := self._image(outputs)) is not None:
            stages["reconstruction"] = drawn.flatten(1)
        return stages

    def _image(self, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The first output with as many numbers as there are in the images, if there is one."""
        return next((o for o in outputs.values() if o.numel() == len(o) * self.pixels), None)
