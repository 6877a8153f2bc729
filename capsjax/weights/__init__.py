"""Weights of networks as files: how one is written and read, and those that ship with the library.

`MODEL/NAME.safetensors` are the weights of a trained network of that model, as `python -m train
export` wrote them, and `MODEL/NAME.md` is its card. What is put here is listed and installed.
"""

from capsjax.weights._file import FLOATS, Contents, read_weights, write_weights
from capsjax.weights._shipped import (
    list_pretrained,
    pretrained_card,
    pretrained_names,
    read_pretrained,
)

__all__ = [
    "FLOATS",
    "Contents",
    "list_pretrained",
    "pretrained_card",
    "pretrained_names",
    "read_pretrained",
    "read_weights",
    "write_weights",
]
