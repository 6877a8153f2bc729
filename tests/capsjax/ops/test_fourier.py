import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax.ops import direct, fourier
from tests.capsjax.ops.forms import assert_agrees_with_xla, draw
from tests.tolerance import assert_close


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_agrees_with_xla_for_any_size_stride_and_tile(data):
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel_size, strides = data.draw(pair), data.draw(pair)
    size = tuple(taps + data.draw(st.integers(0, 9)) for taps in kernel_size)
    x, kernel = draw(2, *size, 3), draw(*kernel_size, 3, 4, seed=1)
    counts, outputs, taps = [], [], []
    for whole, of_kernel, stride in zip(size, kernel_size, strides, strict=True):
        all_of_them = (whole - of_kernel) // stride + 1
        outputs.append(data.draw(st.integers(1, all_of_them)))
        counts.append(-(-all_of_them // outputs[-1]))
        taps.append(-(-of_kernel // stride))
    sides = map(tuple, (counts, outputs, taps))
    tiles = fourier.Geometry(strides, *sides, together=data.draw(st.integers(1, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fourier, "geometry_of", lambda *_: tiles)
        assert_agrees_with_xla(fourier, x, kernel, strides)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_agrees_with_xla_on_the_capsules_of_the_paper(dtype):
    x, kernel = draw(2, 20, 20, 16, dtype=dtype), draw(9, 9, 16, 8, seed=1, dtype=dtype)
    assert_agrees_with_xla(fourier, x, kernel, (2, 2))


def test_a_dim_part_of_a_coarse_image_is_seen_beside_a_bright_one():
    """Its spectrum, rounded to bfloat16, would have an error as large as some outputs."""
    x = np.random.default_rng(0).uniform(size=(2, 20, 20, 32)) * 1e-3
    x[:, 0, 0] = 1
    x, kernel = jnp.asarray(x, jnp.bfloat16), draw(9, 9, 32, 8, seed=1, dtype="bfloat16")
    expected = np.asarray(direct.forward(x, kernel, (1, 1)), np.float64)[:, 1:, 1:]
    found = np.asarray(fourier.forward(x, kernel, (1, 1)), np.float64)[:, 1:, 1:]
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


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
    together = data.draw(st.integers(1, 2))
    a, b, c = fourier.matrices(fourier.Geometry((1, 1), (1, 1), outputs, taps, together))
    # The weight of every product of a pixel and a tap in every output, all of them 0 or 1.
    weights = np.einsum(
        "orxk,rxp,rkt->opt",
        a.reshape(len(a), -1, together, together),
        b.reshape(-1, together, np.prod(grid)),
        c.reshape(-1, together, np.prod(taps)),
        optimize=True,
    )
    expected = np.zeros((*outputs, *grid, *taps))
    for p, q, i, j in np.ndindex(*outputs, *taps):
        expected[p, q, p + i, q + j, i, j] = 1
    assert_close(weights, expected.reshape(weights.shape), reduction_length=a.shape[1])
    pairs = (np.prod(grid) - np.prod([2 - n % 2 for n in grid])) // 2
    rows = np.prod(grid) + pairs if together == 1 else 2 * -(-np.prod(grid) // 2)
    assert len(b) == len(c) == rows


def geometry(size, channels, features, kernel, stride, images=32):
    images_shape, kernel_shape = (
        (images, size, size, channels),
        (kernel, kernel, channels, features),
    )
    return images_shape, kernel_shape, (stride, stride)


@pytest.mark.parametrize(
    ("sizes", "dtype", "expected"),
    [
        ((28, 256, 256, 5, 1), "float32", (True, True)),  # the paper's network without capsules
        ((28, 256, 256, 5, 1), "bfloat16", (True, True)),
        ((28, 256, 256, 5, 1), "float16", (False, False)),  # which could not hold the sums
        ((20, 256, 256, 9, 2), "float32", (True, True)),  # the paper's primary capsules
        ((20, 64, 64, 9, 2, 128), "float32", (True, True)),  # a smaller network's
        ((28, 1, 256, 9, 1), "float32", (False, False)),  # the first convolution: one channel
        ((6, 64, 64, 3, 2), "float32", (False, False)),  # four phases of a small kernel
        ((64, 256, 256, 9, 1), "float32", (True, True)),  # a large image
    ],
)
def test_the_transforms_are_taken_where_they_save_work(sizes, dtype, expected):
    arguments = (*geometry(*sizes), jnp.dtype(dtype))
    found = (
        fourier.is_worthwhile(which, *arguments, gathers=True)
        for which in ("forward", "kernel_gradient")
    )
    assert tuple(found) == expected


def test_a_kernel_is_not_transformed_for_one_image():
    sizes = geometry(20, 256, 256, 9, 2, images=1)
    assert not fourier.is_worthwhile("input_gradient", *sizes, jnp.float32, gathers=True)


def test_what_gathers_no_windows_is_harder_to_beat():
    sizes = geometry(30, 128, 64, 3, 1)
    found = [
        fourier.is_worthwhile("forward", *sizes, jnp.float32, gathers=gathers)
        for gathers in (True, False)
    ]
    assert found == [True, False]


def test_tiles_and_rows_are_those_that_take_least_work():
    assert fourier.geometry_of(*geometry(28, 256, 256, 5, 1))[1:] == ((3, 3), (8, 8), (5, 5), 1)
    # A large kernel for few images: its spectrum is kept small.
    assert fourier.geometry_of(*geometry(20, 256, 256, 9, 2))[1:] == ((1, 1), (6, 6), (5, 5), 2)
