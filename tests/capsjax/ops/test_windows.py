import jax
import jax.numpy as jnp
import pytest

from capsjax.ops import windows
from tests.capsjax.ops.forms import assert_agrees_with_xla, draw


@pytest.mark.parametrize(
    ("size", "channels", "kernel_size", "strides"),
    [
        ((9, 8), 1, (5, 4), (1, 1)),  # all rows of the kernel in one product
        ((7, 7), 90, (3, 3), (2, 3)),  # a row in a product
        ((5, 5), 2, (5, 5), (1, 1)),  # a single window
    ],
)
def test_agrees_with_xla(size, channels, kernel_size, strides):
    x, kernel = draw(3, *size, channels), draw(*kernel_size, channels, 4, seed=1)
    assert_agrees_with_xla(windows, x, kernel, strides)


def test_no_more_than_a_row_of_patches_is_alive():
    x = jax.ShapeDtypeStruct((8, 20, 20, 256), jnp.float32)
    kernel = jax.ShapeDtypeStruct((9, 9, 256, 4), jnp.float32)
    forward = jax.jit(lambda x, kernel: windows.forward(x, kernel, (2, 2)))
    memory = forward.lower(x, kernel).compile().memory_analysis().temp_size_in_bytes
    row_of_patches = 8 * 6 * 6 * 9 * 256 * 4
    assert memory < 3 * row_of_patches  # all nine rows would be nine times that
