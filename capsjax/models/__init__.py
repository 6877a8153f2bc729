"""Published capsule networks, one a file, and their names."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from capsjax import _checks
from capsjax.models.aff_capsnet import AffCapsNet
from capsjax.models.attention_capsnet import AttentionCapsNet
from capsjax.models.capsnet import CapsNet
from capsjax.models.cnn import CNN
from capsjax.models.deepcaps import DeepCaps
from capsjax.models.efficient_capsnet import EfficientCapsNet
from capsjax.models.matrix_capsnet import MatrixCapsNet
from capsjax.models.output import CapsNetOutput, reconstruct
from capsjax.models.sr_capsnet import SRCapsNet
from capsjax.models.vb_capsnet import VBCapsNet

_MODELS: dict[str, Callable[..., nnx.Module]] = {
    "aff_capsnet": AffCapsNet,
    "attention_capsnet": AttentionCapsNet,
    "capsnet": CapsNet,
    "cnn": CNN,
    "deepcaps": DeepCaps,
    "efficient_capsnet": EfficientCapsNet,
    "matrix_capsnet": MatrixCapsNet,
    "sr_capsnet": SRCapsNet,
    "vb_capsnet": VBCapsNet,
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return sorted(_MODELS)


def published_options(name: str) -> dict[str, Any]:
    """The options of a model of `list_models()`, with their published values."""
    model = _MODELS[_checks.one_of("model", name, list_models())]
    fixed = model.keywords if isinstance(model, functools.partial) else {}
    arguments = inspect.signature(getattr(model, "func", model).__init__).parameters
    given = ("self", "image_shape", "num_classes", "rngs")
    return {o: fixed.get(o, a.default) for o, a in arguments.items() if o not in given}


def model_options(name: str) -> list[str]:
    """The options that `create_model` takes for a name of `list_models()`."""
    return list(published_options(name))


def published_routing(name: str) -> str | None:
    """The routing that a model of `list_models()` was published with, None if it has none."""
    return published_options(name).get("routing")


def create_model(
    name: str, *, image_shape: Sequence[int], num_classes: int, rngs: nnx.Rngs, **options: Any
) -> nnx.Module:
    """Makes a model by its name, with its published sizes.

    Args:
        name: one of `list_models()`.
        image_shape: `(height, width, channels)` of one image.
        num_classes: number of classes, a class capsule each.
        rngs: source of the initial values.
        **options: arguments of that model that differ from the published ones, as Python has them
            or as JSON has: a list for a tuple, the name of a dtype, a dict of the fields of
            `Squash` for a squash. All models have `dtype`, that of convolutions, votes and decoder,
            and `param_dtype`, that of the parameters, both float32 if not given; statistics of a
            batch, norms, what routing makes of votes, and what the model returns are float32 at
            least. Those that normalise a batch have `batch_axis`, the name of the mapped axis over
            which it is spread, so that it is normalised as a whole; None where it is in one piece.
            Those of capsules have `routing`, how capsules come about: a name of `list_routings()`,
            or an object; one with parameters is an `UnsizedRouting` of a settings class.

    Raises:
        ValueError: there is no model or option of that name, an option has a wrong value, or the
            sizes do not fit the images.
    """
    _checks.known_options(f"model {name!r}", options, model_options(name))
    return _MODELS[name](image_shape=image_shape, num_classes=num_classes, rngs=rngs, **options)


__all__ = [
    "CNN",
    "AffCapsNet",
    "AttentionCapsNet",
    "CapsNet",
    "CapsNetOutput",
    "DeepCaps",
    "EfficientCapsNet",
    "MatrixCapsNet",
    "SRCapsNet",
    "VBCapsNet",
    "create_model",
    "list_models",
    "model_options",
    "published_options",
    "published_routing",
    "reconstruct",
]
