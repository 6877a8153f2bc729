"""Published capsule networks, one a file, and their names."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from capsjax.models.capsnet import CapsNet, CapsNetOutput

_MODELS: dict[str, Callable[..., nnx.Module]] = {
    "capsnet": CapsNet,
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return sorted(_MODELS)


def create_model(
    name: str,
    *,
    image_shape: Sequence[int],
    num_classes: int,
    rngs: nnx.Rngs,
    **sizes: Any,
) -> nnx.Module:
    """Makes a model by its name, with its published sizes.

    Args:
      name: one of `list_models()`.
      image_shape: `(height, width, channels)` of one image.
      num_classes: number of classes.
      rngs: source of the initial values.
      **sizes: arguments of that model that differ from the published ones.

    Raises:
      ValueError: there is no model of that name, or its sizes do not fit the images.
    """
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}, choose from: {', '.join(list_models())}")
    return _MODELS[name](image_shape=image_shape, num_classes=num_classes, rngs=rngs, **sizes)


__all__ = ["CapsNet", "CapsNetOutput", "create_model", "list_models"]
