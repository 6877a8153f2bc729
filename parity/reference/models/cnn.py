"""The baseline of Sabour, Frosst and Hinton 2017, arXiv:1710.09829, section 5."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Stages, dense_layers, nhwc
from parity.reference.models._base import ModelReference


class CNN(ModelReference):
    """Convolutions, the largest of each 2x2, two dense layers, and a softmax; nothing dropped."""

    parts = ("convolutions.0", "convolutions.1", "hidden.0", "classes")
    tiny: ClassVar = {
        "image_shape": (10, 9, 2),
        "num_classes": 10,
        "features": (4, 3),
        "kernel_size": (3, 5),
        "pool": 2,
        "hidden": (7, 9),
        "dropout": 0.0,
    }
    loss = "cross_entropy"
    pools = True
    longest_sums = (100, 48)

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        height, width, channels = sizes["image_shape"]
        self.pool = sizes["pool"]
        widths = [channels, *sizes["features"]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2)
            for (a, b), kernel in zip(pairwise(widths), sizes["kernel_size"], strict=True)
        )
        for _ in self.convolutions:
            height, width = height // self.pool, width // self.pool
        widths = [height * width * widths[-1], *sizes["hidden"]]
        self.hidden = nn.ModuleList(dense_layers(*widths))
        self.classes = nn.Linear(widths[-1], sizes["num_classes"])

    def forward(self, images: Tensor, labels: Tensor) -> Stages:
        stages: Stages = {}
        x = images
        for index, convolution in enumerate(self.convolutions):
            maps = convolution(x)
            stages[f"convolutions_{index}"] = nhwc(maps)
            x = torch.relu(maps)
            if self.pool > 1:
                x = functional.max_pool2d(x, self.pool)
        x = nhwc(x).flatten(1)
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            if index == 0:
                stages["hidden_0"] = x
            x = torch.relu(x)
        logits = self.classes(x)
        lengths = torch.softmax(logits, dim=1)
        return stages | {"classes": logits, "lengths": lengths, "logits": logits}

    def class_loss(self, stages: Stages, labels: Tensor) -> tuple[str, Tensor]:
        logits = stages["logits"]
        return "cross_entropy", functional.cross_entropy(logits, labels, reduction="none")
