"""Routing algorithms, one published algorithm a file, and their names."""

from collections.abc import Callable
from typing import Any

from capsjax.routing.dynamic import DynamicRouting
from capsjax.routing.protocol import Routed, Routing, route

_ROUTINGS: dict[str, Callable[..., Routing]] = {
    "dynamic": DynamicRouting,
}


def list_routings() -> list[str]:
    """The names that `create_routing` takes."""
    return sorted(_ROUTINGS)


def create_routing(name: str, **options: Any) -> Routing:
    """Makes a routing by its name.

    Args:
      name: one of `list_routings()`.
      **options: arguments of that routing.

    Raises:
      ValueError: there is no routing of that name.
    """
    if name not in _ROUTINGS:
        raise ValueError(f"unknown routing {name!r}, choose from: {', '.join(list_routings())}")
    return _ROUTINGS[name](**options)


__all__ = ["DynamicRouting", "Routed", "Routing", "create_routing", "list_routings", "route"]
