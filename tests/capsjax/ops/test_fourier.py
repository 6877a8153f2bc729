import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax.ops import fourier
from tests.capsjax.ops.forms import assert_agrees_with_xla, draw
from tests.tolerance import assert_close


@settings(deadline=None, max_examples=6)
@given(data=st.data())
def test_agrees_with_xla_for_any_size_and_stride(data):
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel_size, strides = data.draw(pair), data.draw(pair)
    size = tuple(taps + data.draw(st.integers(0, 5)) for taps in kernel_size)
    x, kernel = draw(2, *size, 3), draw(*kernel_size, 3, 4, seed=1)
    assert_agrees_with_xla(fourier, x, kernel, strides)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_agrees_with_xla_on_the_capsules_of_the_paper(dtype):
    x, kernel = draw(2, 20, 20, 16, dtype=dtype), draw(9, 9, 16, 8, seed=1, dtype=dtype)
    assert_agrees_with_xla(fourier, x, kernel, (2, 2))


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x, kernel = draw(2, 9, 8, 3, dtype=np.float64), draw(4, 5, 3, 2, seed=1, dtype=np.float64)
        assert_agrees_with_xla(fourier, x, kernel, (2, 1))


@settings(deadline=None)
@given(data=st.data())
def test_the_three_matrices_make_a_correlation(data):
    outputs = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    taps = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    grid = tuple(p + t - 1 for p, t in zip(outputs, taps, strict=True))
    a, b, c = fourier.matrices(fourier.Geometry((1, 1), outputs, taps, grid))
    # The weight of every product of a pixel and a tap in every output, all of them 0 or 1.
    weights = np.einsum(
        "orxk,rxp,rkt->opt",
        a.reshape(len(a), -1, 2, 2),
        b.reshape(-1, 2, np.prod(grid)),
        c.reshape(-1, 2, np.prod(taps)),
        optimize=True,
    )
    expected = np.zeros((*outputs, *grid, *taps))
    for p, q, i, j in np.ndindex(*outputs, *taps):
        expected[p, q, p + i, q + j, i, j] = 1
    assert_close(weights, expected.reshape(weights.shape), reduction_length=a.shape[1])
    assert len(b) == len(c) == 2 * -(-np.prod(grid) // 2)


def geometry(size, channels, features, kernel, stride, images=32):
    images_shape, kernel_shape = (
        (images, size, size, channels),
        (kernel, kernel, channels, features),
    )
    return images_shape, kernel_shape, (stride, stride)


@pytest.mark.parametrize(
    ("sizes", "dtype", "expected"),
    [
        ((20, 256, 256, 9, 2), "float32", True),  # primary capsules of the paper
        ((20, 256, 256, 9, 2), "bfloat16", True),
        ((20, 256, 256, 9, 2), "float16", False),  # which could not hold the sums
        ((28, 1, 256, 9, 1), "float32", False),  # the paper's first convolution: one channel
        ((6, 64, 64, 3, 2), "float32", False),  # a small kernel
        ((64, 256, 256, 9, 1), "float32", False),  # a grid of 4,096 points
    ],
)
def test_the_transforms_are_taken_where_they_save_work(sizes, dtype, expected):
    assert fourier.is_worthwhile(*geometry(*sizes), jnp.dtype(dtype)) == expected


def test_a_kernel_is_not_transformed_for_one_image():
    assert not fourier.is_worthwhile(*geometry(20, 256, 256, 9, 2, images=1), jnp.float32)
