"""Published capsule networks, one a file, and their names."""

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from capsjax import _checks
from capsjax.models._stored import codes, filled, plain, tensors_of
from capsjax.models.aff_capsnet import AffCapsNet
from capsjax.models.attention_capsnet import AttentionCapsNet
from capsjax.models.capsnet import CapsNet
from capsjax.models.cnn import CNN
from capsjax.models.deepcaps import DeepCaps
from capsjax.models.efficient_capsnet import EfficientCapsNet
from capsjax.models.matrix_capsnet import MatrixCapsNet
from capsjax.models.output import CapsNetOutput, CapsuleNetwork, reconstruct
from capsjax.models.sr_capsnet import SRCapsNet
from capsjax.models.vb_capsnet import VBCapsNet
from capsjax.preprocessing import Preprocessing
from capsjax.routing import create_routing
from capsjax.weights import Contents, pretrained_names, read_pretrained

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
    name: str,
    *,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    rngs: nnx.Rngs | None = None,
    pretrained: str | None = None,
    **options: Any,
) -> nnx.Module:
    """Makes a model by its name, with its published sizes, or one that is trained.

    Args:
        name: one of `list_models()`.
        image_shape: `(height, width, channels)` of one image; a pretrained model has its own.
        num_classes: number of classes, a class capsule each; a pretrained model has its own.
        rngs: source of the initial values; a pretrained model needs none.
        pretrained: what the model was trained on, of `MODEL/PRETRAINED` in `list_pretrained()`; of
            the options it takes `dtype` and `param_dtype` alone. `capsjax.load` gives the same
            network with its class names and what is done to images.
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
        ValueError: there is no model or option of that name, an option has a wrong value, the sizes
            do not fit the images, or no such trained model ships with the library.
        TypeError: `image_shape`, `num_classes` or `rngs` are missing.

    Example:
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.create_model("capsnet", pretrained="digits")
        >>> model(jnp.zeros((2, 8, 8, 1))).lengths.shape
        (2, 10)
    """
    _checks.known_options(f"model {name!r}", options, model_options(name))
    if pretrained is not None:
        _checks.one_of(f"pretrained {name}", pretrained, pretrained_names(name))
        contents = read_pretrained(f"{name}/{pretrained}")
        own = {"image_shape": contents.image_shape, "num_classes": len(contents.class_names)}
        given = {"image_shape": image_shape and tuple(image_shape), "num_classes": num_classes}
        for what, value in {**given, **options}.items():
            if value not in (None, own.get(what)) and what not in ("dtype", "param_dtype"):
                raise ValueError(
                    f"{name} pretrained on {pretrained} cannot have {what}={value!r}: leave it out"
                )
        return restore_model(contents, **options)
    sizes = {"image_shape": image_shape, "num_classes": num_classes, "rngs": rngs}
    if missing := [what for what, value in sizes.items() if value is None]:
        raise TypeError(f"create_model({name!r}) needs {' and '.join(missing)}")
    return _MODELS[name](**sizes, **options)


def describe_model(model: nnx.Module) -> tuple[str, dict[str, Any], tuple[str, dict] | None]:
    """What `create_model` takes to make a model: its name, options as JSON has them, and routing.

    The options are all that it has, the published ones included, but for the routing, a name and
    options of `create_routing` or None, and for `batch_axis`, which is where it is computed.

    Raises:
        ValueError: it is no model of `list_models()`, or an option of it is code.
    """
    names = [name for name, made in _MODELS.items() if type(model) is made]
    if not names or not isinstance(model, CapsuleNetwork):
        raise ValueError(
            f"{type(model).__name__} is none of the networks of capsjax.list_models(), which a "
            "file of weights can describe: keep its variables by flax or Orbax"
        )
    (name,) = names
    values = {**_plain_options(name), **json.loads(model.arguments)}
    if found := codes(values):
        raise ValueError(
            f"{found[0]}, which this {name} has, is code of your own, and a file of weights holds "
            "no code: keep its variables by flax or Orbax"
        )
    routing = values.pop("routing", None)
    for what in ("batch_axis", "image_shape", "num_classes"):
        values.pop(what, None)
    return name, values, routing and (routing[0], routing[1])


def _plain_options(name: str) -> dict[str, Any]:
    return {option: plain(option, value) for option, value in published_options(name).items()}


def restore_model(
    contents: Contents, *, dtype: Any = None, param_dtype: Any = None, device: Any = None
) -> nnx.Module:
    """Makes the model of a file of weights, with other dtypes than it had if they are given.

    The device, or sharding, is where its variables go; by default the default device.

    Raises:
        ValueError: model and weights do not fit each other, or there is no such model.
    """
    _checks.known_options(
        f"model {contents.model!r}", contents.options, model_options(contents.model)
    )
    if (contents.routing is None) == ("routing" in model_options(contents.model)):
        raise ValueError(f"its routing {contents.routing} does not go with {contents.model}")
    given = {"dtype": dtype, "param_dtype": param_dtype}
    options = contents.options | {n: value for n, value in given.items() if value is not None}
    shape = Preprocessing(**contents.preprocessing).seen_shape(contents.image_shape)

    def make() -> nnx.Module:
        if contents.routing is not None:
            name, settings = contents.routing
            options["routing"] = create_routing(name, **settings)
        return create_model(
            contents.model,
            image_shape=shape,
            num_classes=len(contents.class_names),
            rngs=nnx.Rngs(0),
            **options,
        )

    return filled(make, contents.tensors, device)


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
    "describe_model",
    "list_models",
    "model_options",
    "published_options",
    "published_routing",
    "reconstruct",
    "restore_model",
    "tensors_of",
]
