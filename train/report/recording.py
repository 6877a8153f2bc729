"""Recording what parts of a network are given and return, while the network runs as it is."""

from collections.abc import Iterable
from typing import Any

from flax import nnx


class Recorder:
    """Stands in the place of a part of a network and notes what goes in and comes out.

    Of its calls that is the last, of those of its `iterate` all.
    """

    def __init__(self, part: Any) -> None:
        self.part = part
        self.arguments: tuple[Any, ...] = ()
        self.result: Any = None
        self.iterated: list[tuple[tuple[Any, ...], Any]] = []

    def __call__(self, *arguments: Any) -> Any:
        self.arguments, self.result = arguments, self.part(*arguments)
        return self.result

    def iterate(self, *arguments: Any) -> Any:
        self.iterated.append((arguments, self.part.iterate(*arguments)))
        return self.iterated[-1][1]

    def __getattr__(self, name: str) -> Any:
        """Any other attribute is the part's."""
        return getattr(self.part, name)


def record(model: nnx.Module, names: Iterable[str]) -> dict[str, Recorder]:
    """Puts recorders in the place of parts of a network, which can only be called after that.

    The names are attributes of the network, with dots for members and numbers in lists. Returns the
    recorder of each part by its name, to be read after a call of the network.
    """
    recorders = {}
    for name in names:
        path, _, last = name.rpartition(".")
        owner = member(model, path)
        recorders[name] = Recorder(member(owner, last))
        if isinstance(owner, nnx.List):
            owner[int(last)] = nnx.static(recorders[name])
        else:
            setattr(owner, last, nnx.static(recorders[name]))
    return recorders


def member(model: Any, name: str) -> Any:
    """A part of a network by its name, as of `record`; the network itself if that is empty."""
    for part in filter(None, name.split(".")):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model
