"""The trained networks that are installed with the library."""

import importlib.resources
from importlib.resources.abc import Traversable

from capsjax._checks import one_of
from capsjax.weights._file import Contents, read_weights

_SUFFIX, _CARD = ".safetensors", ".md"


def list_pretrained() -> list[str]:
    """The trained networks that ship with the library, each `MODEL/NAME`.

    `capsjax.load` takes such a name, and `create_model(MODEL, pretrained=NAME)` its parts.

    Examples:
        >>> import capsjax
        >>> "capsnet/digits" in capsjax.list_pretrained()
        True
    """
    return sorted(
        f"{folder.name}/{file.name.removesuffix(_SUFFIX)}"
        for folder in _folder().iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(_SUFFIX)
    )


def pretrained_names(model: str) -> list[str]:
    """The names that `create_model` takes as `pretrained` for a model."""
    named = (name.partition("/") for name in list_pretrained())
    return [name for of_model, _, name in named if of_model == model]


def pretrained_card(name: str) -> str:
    """The card of a network of `list_pretrained()`, in Markdown.

    It tells the data that the network was trained on, the recipe, what was measured, and the
    licence.

    Raises:
        ValueError: there is no such network.

    Examples:
        >>> import capsjax.weights
        >>> "CC BY 4.0" in capsjax.weights.pretrained_card("capsnet/digits")
        True
    """
    return _file(name, _CARD).read_text(encoding="utf-8")


def read_pretrained(name: str) -> Contents:
    """The weights of a network of `list_pretrained()`.

    Raises:
        ValueError: there is no such network.
    """
    with importlib.resources.as_file(_file(name, _SUFFIX)) as path:
        return read_weights(path)


def _folder() -> Traversable:
    return importlib.resources.files("capsjax.weights")


def _file(name: str, suffix: str) -> Traversable:
    model, _, own = one_of("pretrained network", name, list_pretrained()).partition("/")
    return _folder() / model / f"{own}{suffix}"
