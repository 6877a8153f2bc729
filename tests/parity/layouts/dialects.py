"""What the tests of layouts share: every network in a size that the digits fit."""

from pathlib import Path

import numpy as np
import torch

from parity.reference import OTHERS, REFERENCES
from train.data import load_dataset

# No two sizes are equal that could be confused: 2 x 2 positions of 3 types, so 12 capsules.
SIZES = {
    "image_shape": (8, 8, 1),
    "num_classes": 10,
    "conv_features": 5,
    "conv_kernel": 3,
    "primary_types": 3,
    "primary_dim": 4,
    "primary_kernel": 2,
    "primary_stride": 3,
    "class_dim": 6,
    "decoder_hidden": (7, 11),
}
OTHER_SIZES = {
    # One position of 3 types.
    "efficient-capsnet": {
        "image_shape": (8, 8, 1),
        "num_classes": 10,
        "features": (5, 6, 8, 12),
        "kernel_sizes": (3, 2, 2, 2),
        "primary_dim": 4,
        "primary_kernel": 2,
        "class_dim": 6,
        "decoder_hidden": (7, 11),
    },
    # 5 x 5 positions, then twice 2 x 2, whose windows overlap at first.
    "yl-1993": {
        "image_shape": (8, 8, 1),
        "num_classes": 10,
        "conv_features": 5,
        "conv_kernel": 3,
        "primary_types": 3,
        "caps_types": (4, 6),
        "caps_kernels": (3, 1),
        "pose_dim": 4,
    },
}
STRIDE = ("--model-options", "primary_stride=3")


def build(name: str, **changes) -> torch.nn.Module:
    """A reference with weights, and statistics of batches, that let every part be seen."""
    if name in OTHERS:
        return _build_other(name, **changes)
    model = REFERENCES[name](**SIZES | changes)
    model.draw(torch.Generator().manual_seed(0), biases=True)
    return model


def _build_other(name: str, **changes) -> torch.nn.Module:
    model = OTHERS[name](**OTHER_SIZES[name] | changes)
    generator = torch.Generator().manual_seed(11)  # with which digits are in several classes
    model.draw(generator, biases=True)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
        elif key.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of copies."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def saved(path: Path, state: object) -> Path:
    """The path, at which something now is saved."""
    torch.save(state, path)
    return path


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `[count, 8, 8, 1]` and int32 labels."""
    test = load_dataset("digits").test
    return test.images[:count], test.labels[:count]


def seen_by(reference: torch.nn.Module, images: np.ndarray) -> torch.Tensor:
    """uint8 images `[N, H, W, C]` as a reference takes them."""
    unit = images.astype(np.float32) / np.float32(255)
    normalised = (unit - np.float32(reference.input_mean)) / np.float32(reference.input_std)
    return torch.from_numpy(np.ascontiguousarray(normalised.transpose(0, 3, 1, 2)))
