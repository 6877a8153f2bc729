import jax
import jax.numpy as jnp
import pytest

from capsjax.ops import direct
from tests.capsjax.ops.forms import assert_agrees_with_xla, draw


@pytest.mark.parametrize("few", [0, 10**6], ids=["some taps", "all taps"])
@pytest.mark.parametrize(
    ("size", "channels", "kernel_size", "strides"),
    [
        ((9, 8), 1, (5, 4), (1, 1)),  # all taps in one product
        ((7, 7), 80, (3, 3), (2, 3)),  # three taps in a product
        ((4, 5), 300, (2, 3), (1, 2)),  # one
        ((5, 5), 2, (5, 5), (1, 1)),  # a single window
        ((10, 12), 8, (3, 2), (1, 1)),  # the kernel's gradient by examples
        ((19, 18), 9, (2, 3), (2, 2)),
    ],
)
def test_agrees_with_xla(size, channels, kernel_size, strides, few, monkeypatch):
    monkeypatch.setattr(direct, "FEW_OUTPUTS", few)
    x, kernel = draw(3, *size, channels), draw(*kernel_size, channels, 4, seed=1)
    assert_agrees_with_xla(direct, x, kernel, strides)


def test_the_patches_are_never_there_at_once():
    x = jax.ShapeDtypeStruct((8, 20, 20, 256), jnp.float32)
    kernel = jax.ShapeDtypeStruct((9, 9, 256, 4), jnp.float32)
    forward = jax.jit(lambda x, kernel: direct.forward(x, kernel, (2, 2)))
    memory = forward.lower(x, kernel).compile().memory_analysis().temp_size_in_bytes
    patches_of_a_tap = 8 * 6 * 6 * 256 * 4
    assert memory < 4 * patches_of_a_tap  # of 81


def test_the_kernel_is_not_cut_up_for_one_image():
    x = jax.ShapeDtypeStruct((1, 20, 20, 256), jnp.float32)
    kernel = jax.ShapeDtypeStruct((9, 9, 256, 256), jnp.float32)
    forward = jax.jit(lambda x, kernel: direct.forward(x, kernel, (2, 2)))
    memory = forward.lower(x, kernel).compile().memory_analysis().temp_size_in_bytes
    assert memory < kernel.size * 4 / 3  # of which a copy would take all
