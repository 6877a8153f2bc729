"""Capsules, and the two functions every vector capsule is made with: norm and squash."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from capsjax._checks import Fraction, check_fields, known_options


class Capsules(NamedTuple):
    """A layer of capsules: what each one sees, and how sure it is that it is there.

    Attributes:
        pose: `[..., n, d]`, the instantiation parameters of `n` capsules of dimension `d`. A matrix
            pose of 4x4 is flattened row-major to `d = 16`.
        activation: `[..., n]`, the presence of each capsule. For vector capsules it is the length
            of the pose.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> pose = jnp.array([[[0.0, 0.5], [0.25, 0.0]]])  # one example, two capsules
        >>> capsjax.Capsules(pose, capsjax.norm(pose)).activation
        Array([[0.5 , 0.25]], dtype=float32)
    """

    pose: jax.Array
    activation: jax.Array


def in_a_list(capsules: Capsules) -> Capsules:
    """Capsules on a grid, `[batch, height, width, types, d]`, as `[batch, n, d]`.

    Capsule `types * p + t` is then the one of type `t` at position `p = y * width + x`. Those that
    are a list already stay as they are.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> from capsjax.capsules import in_a_list
        >>> on_grid = capsjax.Capsules(jnp.ones((2, 6, 6, 32, 8)), jnp.ones((2, 6, 6, 32)))
        >>> in_a_list(on_grid).pose.shape
        (2, 1152, 8)
    """
    pose, activation = capsules
    return Capsules(lax.collapse(pose, 1, pose.ndim - 1), lax.collapse(activation, 1))


def accumulation_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which norms, softmax and losses of `dtype` values are computed.

    At least float32, and float64 for float64 values.

    Examples:
        >>> import jax.numpy as jnp
        >>> from capsjax.capsules import accumulation_dtype
        >>> accumulation_dtype(jnp.bfloat16)
        dtype('float32')
    """
    dtype = jnp.dtype(dtype)
    is_wide = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return dtype if is_wide else jnp.dtype(jnp.float32)


def norm(x: jax.Array, axis: int = -1, *, keepdims: bool = False) -> jax.Array:
    """Euclidean length, exact and with a zero gradient at zero.

    The values are scaled by the largest of them before they are squared, so that nothing overflows
    or underflows on the way: 1e-30 and 1e30 have a length in float32.

    Args:
        x: `[..., d, ...]`, any floating dtype.
        axis: the axis that holds the `d` components.
        keepdims: keep `axis` with size 1.

    Returns:
        `x` without `axis`, computed and returned in `accumulation_dtype(x.dtype)`.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> capsjax.norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
        Array([5., 0.], dtype=float32)
    """
    length = _length(x.astype(accumulation_dtype(x.dtype)), axis)
    return length if keepdims else jnp.squeeze(length, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _length(x: jax.Array, axis: int) -> jax.Array:
    scale = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    scale = jnp.where((scale == 0) | jnp.isinf(scale), 1, scale)
    return scale * jnp.sqrt(jnp.sum(jnp.square(x / scale), axis=axis, keepdims=True))


@_length.defjvp
def _length_jvp(
    axis: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # The direction of x. Through the scale, a cotangent as small as x, which is what a squash sends
    # back, would be multiplied by it and vanish, before it is divided by it.
    (x,), (x_dot,) = primals, tangents
    length = _length(x, axis)
    direction = x / jnp.where(length == 0, 1, length)
    return length, jnp.sum(direction * x_dot, axis=axis, keepdims=True)


def squash(s: jax.Array, axis: int = -1) -> jax.Array:
    """Shrinks short vectors to almost zero and long ones to a length just below 1.

    `v = |s|^2 / (1 + |s|^2) * s / |s|` (Sabour, Frosst and Hinton 2017, arXiv:1710.09829,
    equation 1). Written as `s * |s| / (1 + |s|^2)` nothing is divided by the length, so the value
    and the gradient at zero are zero, as they are in the limit.

    Args:
        s: `[..., d, ...]`, any floating dtype.
        axis: the axis that holds the `d` components of a capsule.

    Returns:
        The shape of `s`, computed and returned in `accumulation_dtype(s.dtype)`.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> lengths = capsjax.norm(capsjax.squash(jnp.array([[0.1, 0.0], [3.0, 4.0]])))
        >>> print(*(f"{length:.2f}" for length in lengths))
        0.01 0.96
    """
    s = s.astype(accumulation_dtype(s.dtype))
    return s * _gain(norm(s, axis, keepdims=True))


@jax.custom_jvp
def _gain(length: jax.Array) -> jax.Array:
    """`n / (1 + n^2)`, by which squash multiplies a vector of length `n`."""
    ratio, _ = _folded(length)
    return ratio / (1 + jnp.square(ratio))


# By hand it is one array, and one program for the compiler, in the place of one for each quotient.
@functools.partial(_gain.defjvps)
def _gain_jvp(tangent: jax.Array, _: jax.Array, length: jax.Array) -> jax.Array:
    ratio, is_long = _folded(length)
    square = jnp.square(ratio)
    slope = (1 - ratio) * (1 + ratio) / jnp.square(1 + square)
    return tangent * jnp.where(is_long, -square * slope, slope)


def _folded(length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A length, or its inverse where that is below 1; and whether it is that."""
    # x / (1 + x^2) is the same for x and 1/x: of the two, the one below 1 cannot overflow.
    is_long = length > 1
    return jnp.where(is_long, 1 / jnp.where(is_long, length, 1), length), is_long


@dataclasses.dataclass(frozen=True)
class Squash:
    """The squash of the paper, and those of public implementations that differ from it.

    Without arguments it is `squash(s)`, over the last axis. Public CapsNets differ from it in what
    they take for a vector, and in an epsilon: `v = |s|^2 / (1 + |s|^2) * s / (|s| + epsilon)`
    (XifengGuo's in PyTorch, 1e-8), or `/ sqrt(|s|^2 + epsilon)` (XifengGuo's in Keras, 1e-7). The
    lengths in the first factor have no epsilon. Value and gradient at zero are zero, and so they
    are, with an epsilon, for a vector whose squared length is below the smallest normal number.

    Attributes:
        axis: what is squashed: each `"pose"` (axis -1, the paper's), each pose component over all
            `"capsules"` (axis -2), or each `"element"` by itself, as a vector of one.
        epsilon: from 0, the paper's, to 1.
        epsilon_in: whether it is added to the `"length"` that `s` is divided by, or to the
            `"square"` of that length under the root.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> squash = capsjax.Squash(epsilon=1e-8)
        >>> squash(jnp.array([[1.0, 0.0]]))
        Array([[0.5, 0. ]], dtype=float32)
    """

    axis: Literal["pose", "capsules", "element"] = "pose"
    epsilon: Fraction = 0.0
    epsilon_in: Literal["length", "square"] = "length"

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, s: jax.Array) -> jax.Array:
        """`[..., n, d]`, any floating dtype -> the same in `accumulation_dtype(s.dtype)`."""
        s = s.astype(accumulation_dtype(s.dtype))
        if self.axis == "element":
            length = jnp.squeeze(norm(s[..., None], keepdims=True), -1)
        else:
            length = norm(s, -1 if self.axis == "pose" else -2, keepdims=True)
        gain = _gain(length)
        return s * (gain * self._shortening(length) if self.epsilon else gain)

    def _shortening(self, length: jax.Array) -> jax.Array:
        """The length divided by what the epsilon makes of it."""
        # Below this the gain times s is no normal number, and the derivatives would overflow.
        is_zero = length < jnp.sqrt(jnp.finfo(length.dtype).tiny)
        inverse = 1 / jnp.where(is_zero, 1, length)
        if self.epsilon_in == "length":
            divisor = 1 + self.epsilon * inverse
        else:
            divisor = jnp.sqrt(1 + self.epsilon * jnp.square(inverse))
        return jnp.where(is_zero, 0, 1 / divisor)


@dataclasses.dataclass(frozen=True)
class ExponentialSquash:
    """A squash that is steep at zero: `v = (1 - 1 / (e^|s| + epsilon)) s / (|s| + epsilon)`.

    Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491; the epsilon is that of the authors' code.
    Where the squash of Sabour et al. leaves a short vector with the square of its length, this one
    leaves it as it is. So its derivative at zero is not zero but, as in the limit, the identity.
    Nothing overflows, however long the vector.

    Attributes:
        epsilon: from 0 to 1. The published one changes no value in float64.

    Raises:
        ValueError: the epsilon is no such number.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> from capsjax.capsules import ExponentialSquash
        >>> squashed = ExponentialSquash()(jnp.array([[3.0, 4.0]]))
        >>> f"{capsjax.norm(squashed)[0]:.3f}"
        '0.993'
    """

    epsilon: Fraction = 1e-20

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, s: jax.Array) -> jax.Array:
        """`[..., n, d]`, any floating dtype -> the same in `accumulation_dtype(s.dtype)`."""
        s = s.astype(accumulation_dtype(s.dtype))
        n = norm(s, keepdims=True)
        # Multiplied out by e^-n, which cannot overflow, the first factor over n + epsilon is a mean
        # of (1 - e^-n) / n and e^-n, both of which tend to 1.
        decay, slope = jnp.exp(-n), _slope(n)
        is_zero = n < jnp.sqrt(jnp.finfo(n.dtype).tiny)  # below, the derivative would overflow
        share = jnp.where(is_zero, 0, 1 / (1 + self.epsilon / jnp.where(is_zero, 1, n)))
        return s * (decay + (slope - decay) * share) / (1 + self.epsilon * decay)


def _slope(n: jax.Array) -> jax.Array:
    """`(1 - e^-n) / n`, by its series where the division would cost the derivative its digits."""
    is_short = n < 1e-3
    short, long = jnp.where(is_short, n, 0), jnp.where(is_short, 1, n)
    series = 1 - short / 2 * (1 - short / 3 * (1 - short / 4 * (1 - short / 5)))
    return jnp.where(is_short, series, -jnp.expm1(-long) / long)


def squash_from(value: Any) -> Callable[[jax.Array], jax.Array]:
    """A squash of what a configuration holds.

    Args:
        value: a function of capsules `[..., n, d]`, such as a `Squash`; the fields of a `Squash` by
            name; or `"exponential"`, the published `ExponentialSquash`.

    Raises:
        ValueError: it is none of these, or a field is unknown or has a wrong value.

    Examples:
        >>> import capsjax
        >>> from capsjax.capsules import squash_from
        >>> squash_from({"epsilon": 1e-8})
        Squash(axis='pose', epsilon=1e-08, epsilon_in='length')
    """
    if isinstance(value, Mapping):
        known_options("squash", value, [field.name for field in dataclasses.fields(Squash)])
        return Squash(**value)
    if value == "exponential":
        return ExponentialSquash()
    if isinstance(value, type) or not callable(value):
        raise ValueError(
            f"squash must be a Squash or a dict of its fields, not {value!r}; by name there is: "
            "exponential"
        )
    return value


SquashFunction = Annotated[
    Callable[[jax.Array], jax.Array], lambda _name, value: squash_from(value)
]
"""A function of capsules `[..., n, d]`; as an argument also what else `squash_from` takes."""
