"""Routings that a user wrote: `FILE.py:NAME` in the place of the name of a published one.

The file is code and is run. So only the command line can bring it in: a configuration that comes
from a run folder names its routing, but cannot load it.
"""

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import capsjax
from train.config.settings import FILE_SEPARATOR
from train.system.errors import UserError, first_line

_SIZES = capsjax.Sizes(in_capsules=6, in_dim=4, out_capsules=3, out_dim=16)
"""What a routing is tried on: the sizes differ, so that none is taken for another."""

_trusted: dict[str, Any] = {}
_tried: set[tuple[str, str]] = set()


def is_own(name: str) -> bool:
    """Whether a name is `FILE.py:NAME`."""
    return FILE_SEPARATOR in name


def trust(name: str | None) -> None:
    """Runs the file of a routing that the user named; of other names nothing happens.

    Raises:
        UserError: there is no such file, it fails, or it has nothing of that name.
    """
    if name is None or not is_own(name) or name in _trusted:
        return
    stem, _, attribute = name.rpartition(FILE_SEPARATOR)
    path = Path(f"{stem}.py")
    if not path.is_file():
        raise UserError(f"there is no file {path}: --routing is a name, or FILE.py:NAME.")
    spec = importlib.util.spec_from_file_location(f"user_routing_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up what they are made in
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be run: {type(error).__name__}: {error}.") from error
    if not callable(getattr(module, attribute, None)):
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(
            f"{path} has no {attribute} that could be called: it has "
            f"{', '.join(sorted(own)) or 'nothing of the kind'}."
        )
    _trusted[name] = getattr(module, attribute)


def code_fingerprint(name: str) -> str | None:
    """A checksum of the code of a routing that was trusted, comments left out; of others None."""
    if name not in _trusted:
        return None
    text = Path(f"{name.rpartition(FILE_SEPARATOR)[0]}.py").read_text(encoding="utf-8")
    return hashlib.sha256(ast.unparse(ast.parse(text)).encode()).hexdigest()


def trusted() -> tuple[str, ...]:
    """The names that were trusted, for a process that this one starts."""
    return tuple(_trusted)


def takes_iterations(name: str) -> bool:
    """Whether a routing, published or of the user's own, has `iterations`."""
    if not is_own(name):
        return "iterations" in capsjax.routing_options(name)
    return "iterations" in inspect.signature(_own(name)).parameters


def make_routing(name: str, **options: Any) -> Any:
    """`capsjax.create_routing`, and the same for a routing of the user's own.

    A class is called with the options, and of a function they become arguments.

    Raises:
        UserError: the routing was not named on the command line.
        ValueError: it does not do what a routing does, or has no such option.
        TypeError: an option is wrong.
    """
    if not is_own(name):
        return capsjax.create_routing(name, **options)
    made = _own(name)
    if inspect.isclass(made):
        try:
            routing = made(**options)
        except TypeError as error:
            raise TypeError(
                f"{error}; it is called with --routing-options alone: a routing that needs sizes "
                "or rngs is made by the `build` of another class, as the guide to a routing of "
                "your own shows (docs/notebooks)"
            ) from error
    else:
        routing = functools.partial(made, **options) if options else made
    if (name, repr(options)) not in _tried:
        with jax.ensure_compile_time_eval():  # whatever the network is made for: shapes or numbers
            _try_out(routing, name.rpartition(FILE_SEPARATOR)[2])
        _tried.add((name, repr(options)))
    return routing


def _own(name: str) -> Any:
    if name not in _trusted:
        raise UserError(
            f"this run has the routing {name}, which is code: if you trust that file, name it with "
            f"--routing {name}."
        )
    return _trusted[name]


def _try_out(routing: Any, name: str) -> None:
    """Routes ordinary votes, so that what is wrong comes out before anything is trained.

    Raises:
        ValueError: it is no routing, or returns something of a wrong shape or not finite.
    """
    random = np.random.default_rng(0)
    I, K, J, D = _SIZES  # noqa: E741
    votes = jnp.asarray(random.standard_normal((2, I, J, D)), jnp.float32)
    pose = jnp.asarray(random.standard_normal((2, I, K)), jnp.float32)
    activation, key = jnp.full((2, I), 0.5), jax.random.key(0)
    if isinstance(routing, capsjax.routing.UnsizedRouting):
        routing = routing.build(_SIZES, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    elif not callable(routing):
        raise ValueError(
            f"{name} makes a {type(routing).__name__}, which cannot be called and has no `build`"
        )

    @jax.grad
    def gradient_of(votes: jax.Array) -> jax.Array:
        routed = capsjax.route(routing, votes, activation, pose=pose, key=key)
        return jnp.sum(routed.pose) + jnp.sum(routed.activation)

    try:
        routed = capsjax.route(routing, votes, activation, pose=pose, key=key)
        found = {**routed._asdict(), "a gradient": gradient_of(votes)}
    except Exception as error:
        raise ValueError(
            f"{name} fails on votes {(I, J, D)} and activations {(I,)} of ordinary numbers, on "
            f"which it is tried before anything is trained: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    for what, array in found.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} returned {what} with values that are not finite for ordinary votes, "
                "expected finite numbers"
            )
