"""What the tests of layouts share: every dialect's network in a size that the digits fit."""

from pathlib import Path

import numpy as np
import torch

from parity.pairs import draw_weights
from parity.reference import REFERENCES
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
STRIDE = ("--model-options", "primary_stride=3")


def build(name: str, **changes) -> torch.nn.Module:
    """A dialect's reference with weights that let every part be seen."""
    model = REFERENCES[name](**SIZES | changes)
    draw_weights(model, seed=0, biases=True)
    return model


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of copies."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


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
