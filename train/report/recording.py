"""What the parts of a network are given and return, while the network runs as it is."""

from collections.abc import Iterable
from typing import Any

from flax import nnx


class Watched:
    """Stands in the place of a part of a network and notes what goes in and comes out.

    Attributes:
        part: the part itself.
        arguments: of the last call.
        result: of the last call.
        steps: arguments and result of every call of its `step`.
    """

    def __init__(self, part: Any) -> None:
        self.part = part
        self.arguments: tuple[Any, ...] = ()
        self.result: Any = None
        self.steps: list[tuple[tuple[Any, ...], Any]] = []

    def __call__(self, *arguments: Any) -> Any:
        """Calls the part."""
        self.arguments, self.result = arguments, self.part(*arguments)
        return self.result

    def step(self, *arguments: Any) -> Any:
        """Calls `step` of the part."""
        result = self.part.step(*arguments)
        self.steps.append((arguments, result))
        return result

    def __getattr__(self, name: str) -> Any:
        """What else the network asks of the part."""
        return getattr(self.part, name)


def watch(model: nnx.Module, names: Iterable[str]) -> dict[str, Watched]:
    """Puts parts of a network under watch; it can be called then, and nothing else.

    Args:
        model: the network, changed in place.
        names: attributes of the network, with dots for members and numbers in lists.

    Returns:
        By its name each part, to be read after the network has been called.
    """
    watched = {}
    for name in names:
        path, _, last = name.rpartition(".")
        owner = member(model, path)
        watched[name] = Watched(member(owner, last))
        if isinstance(owner, nnx.List):
            owner[int(last)] = nnx.static(watched[name])
        else:
            setattr(owner, last, nnx.static(watched[name]))
    return watched


def member(model: Any, name: str) -> Any:
    """A part of a network by its name, as of `watch`; the network itself if that is empty."""
    for part in filter(None, name.split(".")):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model
