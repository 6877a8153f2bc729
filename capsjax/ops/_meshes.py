"""What a mesh of devices wants to be told, where it is not left to the compiler.

`jax.shard_map` tells what differs from device to device from what is the same on all; a mesh whose
axes are explicit, as those of `jax.make_mesh` are, knows how each array is sharded. Anywhere else
nothing here adds an operation.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec


def varying_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, marked as differing between devices if any of them does.

    What is the same on all devices then has the sum over them for its gradient, and a choice
    between platforms takes its branches for alike.
    """
    axes = frozenset[Any]().union(*map(_varying, arrays))
    return tuple(lax.pcast(x, tuple(axes - _varying(x)), to="varying") for x in arrays)


def sharded_alike(tree: Any, of: jax.Array) -> Any:
    """The tree, the leading axis of its arrays sharded as that of another array.

    What is the same for all examples of a batch comes unsharded, and is not mapped with the others.
    """
    if not is_explicit(of):
        return tree
    (leading, *_), mesh = jax.typeof(of).sharding.spec, jax.typeof(of).sharding.mesh

    def alike(x: jax.Array) -> jax.Array:
        (own, *rest) = jax.typeof(x).sharding.spec
        spec = PartitionSpec(leading, *rest)
        return x if own == leading else jax.sharding.reshard(x, NamedSharding(mesh, spec))

    return jax.tree.map(alike, tree)


def sharded_by_compiler(function: Callable[..., Any], *arrays: jax.Array, like: Any) -> Any:
    """Calls a function within which the compiler shards what is computed.

    Args:
        function: of the arrays.
        *arrays: of a mesh, or of none.
        like: a tree of arrays: each that the function returns is sharded as the one here.
    """
    if not any(map(is_explicit, arrays)):
        return function(*arrays)
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding, like)
    return jax.sharding.auto_axes(function, out_sharding=shardings)(*arrays)


def _varying(x: jax.Array) -> frozenset[Any]:
    """The axes of a mesh over which an array varies."""
    return jax.typeof(x).manual_axis_type.varying


def is_explicit(x: jax.Array) -> bool:
    """Whether an array is on a mesh that has explicit axes."""
    return bool(jax.typeof(x).sharding.mesh.explicit_axes)
