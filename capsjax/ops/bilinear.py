"""Products of examples and a kernel, in which each of the three derivatives has a form of its own.

The sum of the outputs, each times a number of `g`, is linear in inputs, kernel and `g`. So such a
product and its two gradients are products of two of these that differ in which is left out, and
each is the gradient of the others: with one primitive for the three, every derivative of any order,
forwards or backwards, is one of them. `jax.custom_vjp` has derivatives backwards alone.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from capsjax.ops._arrays import split
from capsjax.ops._meshes import sharded_by_compiler, varying_alike

Shape = tuple[int, ...]


class Bilinear(Hashable, Protocol):
    """A product of inputs `x` and a kernel that all examples share.

    The first axis of inputs and outputs is one of examples. Each function is told the shape of what
    it returns, and whether it is `alone` or one of several, each with a kernel of its own.
    """

    def forward(self, x: jax.Array, kernel: jax.Array, shape: Shape, *, alone: bool) -> jax.Array:
        """Inputs and kernel -> outputs."""
        ...

    def to_inputs(self, kernel: jax.Array, g: jax.Array, shape: Shape, *, alone: bool) -> jax.Array:
        """Kernel and the gradient `g` of the outputs -> that of the inputs."""
        ...

    def to_kernel(self, x: jax.Array, g: jax.Array, shape: Shape, *, alone: bool) -> jax.Array:
        """Inputs and the gradient `g` of the outputs -> that of the kernel."""
        ...


def bilinear(how: Bilinear, x: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """The product of inputs and kernel, of a shape, in the dtype that both have.

    The precision of `jax.default_matmul_precision` is that of the place where this is called, for
    all derivatives too, as it is of JAX's own products.
    """
    x, kernel = varying_alike(x, kernel)
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    bind = functools.partial(
        _product.bind, which="forward", how=how, precision=precision, shape=shape, mapped=0
    )
    return sharded_by_compiler(bind, x, kernel, like=x)


_product = Primitive("bilinear_product")

_FACTORS = {"forward": "xk", "to_inputs": "kg", "to_kernel": "xg"}
_BY_LEFT_OUT = {"g": "forward", "x": "to_inputs", "k": "to_kernel"}


def _compute(
    a: jax.Array,
    b: jax.Array,
    *,
    which: str,
    how: Bilinear,
    precision: str | None,
    shape: Any,
    mapped: int,
) -> jax.Array:
    """The product; both factors have so many mapped axes in front."""
    function: Callable[..., jax.Array] = functools.partial(_of_one, which, how, shape, not mapped)
    for _ in range(mapped):
        function = jax.vmap(function)
    with jax.default_matmul_precision(precision):
        return function(a, b)


def _of_one(
    which: str, how: Bilinear, shape: Any, alone: bool, a: jax.Array, b: jax.Array
) -> jax.Array:
    return getattr(how, which)(a, b, shape, alone=alone)


@functools.cache
def _compiled(**params: Any) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(_compute, **params))


@_product.def_impl
def _(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    return _compiled(**params)(a, b)


@_product.def_abstract_eval
def _(a: Any, b: Any, *, shape: Any, mapped: int, **_params: Any) -> Any:
    return a.update(shape=(*a.shape[:mapped], *shape), weak_type=False)


def _gradient(place: int, g: jax.Array, a: Any, b: Any, *, which: str, **params: Any) -> Any:
    """The gradient of a product by its factor at a place, whose value is not known."""
    factors = _FACTORS[which]
    wanted, given = factors[place], factors[1 - place]
    (left_out,) = {"x", "k", "g"} - set(factors)
    arrays = {left_out: g, given: (b, a)[place]}
    shape = (a, b)[place].aval.shape[params["mapped"] :]
    which = _BY_LEFT_OUT[wanted]
    operands = (arrays[factor] for factor in _FACTORS[which])
    return _product.bind(*operands, which=which, **{**params, "shape": shape})


ad.defbilinear(_product, functools.partial(_gradient, 0), functools.partial(_gradient, 1))


def _map(arrays: Any, axes: Any, *, which: str, shape: Any, mapped: int, **params: Any) -> Any:
    """The product under `jax.vmap`."""
    (size,) = {x.shape[axis] for x, axis in zip(arrays, axes, strict=True) if axis is not None}
    a, b = (
        x if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(arrays, axes, strict=True)
    )
    options = {"which": which, **params}
    batched, other = (0, 1) if which == "forward" else (1, 0)
    if mapped == 0 and which != "to_kernel" and axes[other] is None:
        # Of one kernel: examples of one batch.
        pair = [a, b]
        pair[batched] = lax.collapse(pair[batched], 0, 2)
        whole = _product.bind(*pair, shape=(size * shape[0], *shape[1:]), mapped=0, **options)
        return split(whole, 0, size, shape[0]), 0
    a, b = (
        jnp.broadcast_to(x[None], (size, *x.shape)) if axis is None else x
        for x, axis in zip((a, b), axes, strict=True)
    )
    return _product.bind(a, b, shape=shape, mapped=mapped + 1, **options), 0


batching.primitive_batchers[_product] = _map
mlir.register_lowering(_product, mlir.lower_fun(_compute, multiple_results=False))
