"""Arguments are checked by their annotations, and what has none of these is left alone."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import Fraction, PositiveInt, PositiveInts, check_fields, checked


@checked
def function(
    size: PositiveInt,
    sizes: PositiveInts | None = None,
    *,
    way: Literal["in", "out"] = "in",
    is_so: bool = False,
    other: int = 0,
):
    return size, sizes, way, is_so, other


def test_arguments_come_in_their_types():
    assert function(2, [3, 4], other=-1) == (2, (3, 4), "in", False, -1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be an integer of at least 1, not 0"),
        ({"sizes": 3}, "sizes must be a sequence of integers of at least 1, not 3"),
        ({"way": "up"}, "unknown way 'up', choose from: in, out"),
        ({"is_so": 1}, "is_so must be True or False, not 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"size": 1, **arguments})


def test_a_dtype_is_one_that_jax_computes_in():
    @checked
    def function(dtype: DTypeLike):
        return dtype

    assert function("bfloat16") == jnp.bfloat16
    for wrong in (None, "int8", "float7"):
        with pytest.raises(ValueError, match=f"dtype must be a floating dtype .*, not {wrong!r}"):
            function(wrong)
    with pytest.raises(ValueError, match="dtype is float64, which needs JAX's x64 mode"):
        function("float64")
    with jax.enable_x64(True):
        assert function("float64") == jnp.float64


@pytest.mark.parametrize("wrong", [0, None, jax.random.key(0)], ids=["0", "None", "key"])
def test_streams_of_random_keys_are_no_seed_and_no_key(wrong):
    @checked
    def function(*, rngs: nnx.Rngs):
        return rngs

    with pytest.raises(ValueError, match=r"rngs must be flax.nnx.Rngs, such as nnx.Rngs\(0\), not"):
        function(rngs=wrong)


def test_a_dataclass_says_whose_field_is_wrong():
    @dataclasses.dataclass(frozen=True)
    class Own:
        share: Fraction = 0.5

        __post_init__ = check_fields

    assert Own(1).share == 1.0
    with pytest.raises(ValueError, match="Own: share must be a number from 0 to 1, not nan"):
        Own(float("nan"))


def test_annotations_that_mean_nothing_are_left_alone():
    @dataclasses.dataclass
    class Own:
        share: "Unknown"  # noqa: F821

        __post_init__ = check_fields

    assert Own(3).share == 3
