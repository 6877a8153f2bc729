"""Published capsule networks, one a file, and their names."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
from flax import nnx

from capsjax import _checks
from capsjax.models._stored import changes, codes, filled, plain, tensors_of
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

_MODELS: dict[str, Callable[..., CapsuleNetwork]] = {
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
    """The names that `create_model` takes.

    Examples:
        >>> import capsjax
        >>> capsjax.list_models()[:3]
        ['aff_capsnet', 'attention_capsnet', 'capsnet']
    """
    return sorted(_MODELS)


def published_options(name: str) -> dict[str, Any]:
    """The options of a model of `list_models()`, with their published values.

    Examples:
        >>> import capsjax
        >>> capsjax.models.published_options("capsnet")["conv_features"]
        256
    """
    model = _MODELS[_checks.one_of("model", name, list_models())]
    fixed = model.keywords if isinstance(model, functools.partial) else {}
    arguments = inspect.signature(getattr(model, "func", model).__init__).parameters
    given = ("self", "image_shape", "num_classes", "rngs")
    return {o: fixed.get(o, a.default) for o, a in arguments.items() if o not in given}


def model_options(name: str) -> list[str]:
    """The options that `create_model` takes for a name of `list_models()`.

    Examples:
        >>> import capsjax
        >>> capsjax.model_options("efficient_capsnet")[:2]
        ['features', 'kernel_sizes']
    """
    return list(published_options(name))


def published_routing(name: str) -> str | None:
    """The routing that a model of `list_models()` was published with, None if it has none.

    Examples:
        >>> import capsjax
        >>> capsjax.models.published_routing("matrix_capsnet")
        'em'
    """
    return published_options(name).get("routing")


def create_model(
    name: str,
    *,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    rngs: nnx.Rngs | None = None,
    pretrained: str | None = None,
    **options: Any,
) -> CapsuleNetwork:
    """Makes a model by its name, with its published sizes, or one that is trained.

    Args:
        name: one of `list_models()`.
        image_shape: `(height, width, channels)` of one image; a pretrained model has its own.
        num_classes: number of classes, a class capsule each; a pretrained model has its own.
        rngs: source of the initial values; a pretrained model needs none. Where it has the stream
            `routing` (in `cnn`, `dropout`), that is what is drawn from in training.
        pretrained: what the model was trained on, of `MODEL/PRETRAINED` in `list_pretrained()`; of
            the options it takes `dtype` and `param_dtype` alone, and it is in the mode of
            evaluation until its method `train` is called. `capsjax.load` gives the same network
            with its class names and what is done to images.
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

    Examples:
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
        shape = None if image_shape is None else _checks.image_shape(image_shape)
        given = {"image_shape": shape, "num_classes": num_classes}
        refused = {what: of for what, of in given.items() if of not in (None, own[what])}
        refused |= {
            what: of for what, of in options.items() if what not in ("dtype", "param_dtype")
        }
        for what, value in refused.items():
            raise ValueError(
                f"{name} pretrained on {pretrained} cannot have {what}={value!r}: leave it out"
            )
        return restore_model(contents, rngs=rngs, **options)
    sizes = {"image_shape": image_shape, "num_classes": num_classes, "rngs": rngs}
    if missing := [what for what, value in sizes.items() if value is None]:
        raise TypeError(f"create_model({name!r}) needs {' and '.join(missing)}")
    return _MODELS[name](**sizes, **options)


def options_of(model: nnx.Module) -> tuple[str, dict[str, Any]]:
    """The name of a model, and all its options as JSON has them, the published ones included.

    The `routing` is a list of a name and options of `create_routing`, and so is one that was given
    as an object for another option. What is code is a dict of its
    name, `{"code": name}`; `batch_axis` is left out, which is where the model is computed.

    Raises:
        ValueError: it is no model of `list_models()`.

    Examples:
        >>> import capsjax
        >>> model = capsjax.create_model("capsnet", pretrained="digits")
        >>> name, options = capsjax.models.options_of(model)
        >>> name, options["primary_types"], options["routing"][0]
        ('capsnet', 8, 'dynamic')
    """
    names = [name for name, made in _MODELS.items() if type(model) is made]
    if not names or not isinstance(model, CapsuleNetwork):
        raise ValueError(
            f"{type(model).__name__} is none of the networks of capsjax.list_models(), which a "
            "file of weights can describe: keep its variables by flax or Orbax"
        )
    (name,) = names
    values = {**_plain_options(name), **json.loads(model.arguments)}
    return name, {n: v for n, v in values.items() if n not in _PLACE}


_PLACE = ("batch_axis", "image_shape", "num_classes")


def describe_model(model: nnx.Module) -> tuple[str, dict[str, Any], tuple[str, dict] | None]:
    """What a file says of a model: the name and options of `options_of`, and its routing apart.

    The routing is a name and options of `create_routing`, None for a model without.

    Raises:
        ValueError: it is no model of `list_models()`, an option of it is code, or it was changed
            after it was made.

    Examples:
        >>> import capsjax
        >>> model = capsjax.create_model("capsnet", pretrained="digits")
        >>> _, _, (routing, settings) = capsjax.models.describe_model(model)
        >>> routing, settings["iterations"]
        ('dynamic', 3)
    """
    name, values = options_of(model)
    if found := codes(values):
        raise ValueError(
            f"{found[0]}, which this {name} has, is code of your own, and a file of weights holds "
            "no code: keep its variables by flax or Orbax"
        )
    with jax.enable_x64(True):  # which a float64 network may have been made with
        made = nnx.eval_shape(lambda: _made(name, model, values))
    if changed := changes(model, made):
        raise ValueError(
            f"{changed} of this {name} is not what it was when the network was made, and a file "
            "describes that alone: make the network as it is to be, or keep its variables by flax "
            "or Orbax"
        )
    routing = values.pop("routing", None)
    return name, values, routing and (routing[0], routing[1])


def _made(name: str, model: Any, values: dict[str, Any]) -> CapsuleNetwork:
    """A model of a name and plain options, as large as another one."""
    return create_model(
        name,
        image_shape=model.image_shape,
        num_classes=model.num_classes,
        rngs=nnx.Rngs(0),
        **_with_routings(values),
    )


def _with_routings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain options, in which what a routing is made of has become one."""
    options = dict(values)
    for name, value in values.items():
        match value:
            case [str(routing), dict(settings)] if name.endswith("routing"):
                options[name] = create_routing(routing, **settings)
    return options


def _plain_options(name: str) -> dict[str, Any]:
    return {option: plain(option, value) for option, value in published_options(name).items()}


def restore_model(
    contents: Contents,
    *,
    dtype: Any = None,
    param_dtype: Any = None,
    device: Any = None,
    rngs: nnx.Rngs | None = None,
) -> CapsuleNetwork:
    """Makes the model of a file of weights, with other dtypes than it had if they are given.

    The device, or sharding, is where its variables go; by default the default device. `rngs` is
    what is drawn from in training, see `create_model`.

    Raises:
        ValueError: model and weights do not fit each other, or there is no such model.

    Examples:
        >>> import capsjax.weights
        >>> contents = capsjax.weights.read_pretrained("capsnet/digits")
        >>> capsjax.models.restore_model(contents, dtype="bfloat16").features.conv.dtype
        dtype(bfloat16)
    """
    _checks.known_options(
        f"model {contents.model!r}", contents.options, model_options(contents.model)
    )
    if (contents.routing is None) == ("routing" in model_options(contents.model)):
        raise ValueError(f"its routing {contents.routing} does not go with {contents.model}")
    given = {"dtype": dtype, "param_dtype": param_dtype}
    options = contents.options | {n: value for n, value in given.items() if value is not None}
    shape = Preprocessing(**contents.preprocessing).seen_shape(contents.image_shape)

    if contents.routing is not None:
        options["routing"] = list(contents.routing)

    def make() -> CapsuleNetwork:
        return create_model(
            contents.model,
            image_shape=shape,
            num_classes=len(contents.class_names),
            rngs=nnx.Rngs(0),
            **_with_routings(options),
        )

    model = cast(CapsuleNetwork, filled(make, contents.tensors, device))
    if rngs is not None:
        model.draw_from(rngs)
    return model


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
    "options_of",
    "published_options",
    "published_routing",
    "reconstruct",
    "restore_model",
    "tensors_of",
]
