"""The convolution of a CPU against `jax.lax`, in value and in both gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export, lax
from jax.sharding import PartitionSpec

from capsjax.ops import conv_general_dilated, fourier
from tests.capsjax.ops.forms import draw
from tests.tolerance import assert_close

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def ours(x, kernel, strides=(1, 1), padding="VALID", **options):
    return conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=CHANNELS_LAST, **options
    )


def xla(x, kernel, strides=(1, 1), padding="VALID", **options):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=CHANNELS_LAST, **options
    )


def padded_first(x, kernel, strides, padding):
    """XLA's convolution of an image that is padded, or cropped, already.

    XLA's own gradient with respect to an image on a CPU (seen in JAX 0.10.2) is wrong where there
    is as much padding as the kernel is long: some windows see nothing of the image then.
    """
    if isinstance(padding, str):
        return xla(x, kernel, strides, padding)
    sides = [(low, high, 0) for low, high in ((0, 0), *padding, (0, 0))]
    return xla(lax.pad(x, jnp.zeros((), x.dtype), sides), kernel, strides)


@functools.partial(jax.jit, static_argnums=(2, 3))
def values_and_gradients(x, kernel, strides, padding):
    """Ours, and those of XLA."""
    results = []
    for convolve in (ours, padded_first):
        value, pullback = jax.vjp(
            functools.partial(convolve, strides=strides, padding=padding), x, kernel
        )
        weights = jnp.sin(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
        results.append((value, *pullback(weights.astype(value.dtype))))
    return results


def assert_agree(x, kernel, strides, padding):
    actual, expected = values_and_gradients(x, kernel, strides, padding)
    windows = math.prod(kernel.shape[:2])
    lengths = (
        windows * kernel.shape[2],  # a value: a window of inputs
        windows * kernel.shape[3],  # an input's gradient: the outputs that saw it
        max(1, expected[0].size // kernel.shape[3]),  # a weight's: all positions
    )
    for a, e, n in zip(actual, expected, lengths, strict=True):
        assert a.dtype == e.dtype
        assert_close(a, e, reduction_length=n)


def is_xla(f, *arguments):
    """Whether a CPU would run the function as XLA's convolution."""
    text = jax.jit(f).lower(*arguments).as_text()
    return "stablehlo.convolution" in text


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_any_size_stride_and_padding(data):
    kernel_size = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = data.draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    side = st.tuples(st.integers(0, 3), st.integers(0, 3))
    explicit = st.tuples(side, side)
    padding = data.draw(st.one_of(st.sampled_from(["SAME", "VALID"]), explicit))
    x = draw(2, *size, 3)
    kernel = draw(*kernel_size, 3, 4, seed=1)
    assert_agree(x, kernel, strides, padding)


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "padding"),
    [
        ((10, 9), (3, 3), (2, 2), "VALID"),  # a leftover row
        ((10, 11), (3, 4), (3, 3), "VALID"),  # leftovers of one and of two
        ((7, 8), (3, 3), (2, 2), "SAME"),
        ((5, 5), (5, 5), (1, 1), "VALID"),  # a single window
        ((5, 5), (5, 5), (4, 4), ((1, 2), (0, 3))),
        ((6, 6), (1, 1), (2, 2), "VALID"),  # most inputs are never seen
        ((4, 4), (2, 1), (1, 1), ((2, 0), (0, 3))),  # windows that see nothing of the image
        ((8, 8), (3, 3), (1, 2), ((-1, 0), (-2, -1))),  # cropped
        ((8, 8), (3, 3), (2, 2), ((-1, 2), (1, -1))),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_leftovers_and_crops(size, kernel_size, strides, padding, dtype):
    x, kernel = draw(2, *size, 3, dtype=dtype), draw(*kernel_size, 3, 4, seed=1, dtype=dtype)
    assert_agree(x, kernel, strides, padding)


def test_float64():
    with jax.enable_x64(True):
        x, kernel = draw(2, 10, 9, 3, dtype=jnp.float64), draw(3, 3, 3, 4, dtype=jnp.float64)
        assert ours(x, kernel).dtype == jnp.float64
        assert_close(ours(x, kernel, (2, 2)), xla(x, kernel, (2, 2)), reduction_length=27)


def test_coarse_inputs_are_summed_in_float32():
    x, kernel = jnp.ones((1, 1, 1, 1024), jnp.bfloat16), jnp.ones((1, 1, 1024, 1), jnp.bfloat16)
    kernel = kernel.at[0, 0, 0, 0].set(3)
    # 1026 is no bfloat16 and rounds to 1024; a sum in bfloat16 would have stopped at 256.
    assert float(ours(x, kernel)[0, 0, 0, 0]) == 1024


def test_a_convolution_is_mapped_over_images_and_over_kernels():
    x, kernels = draw(3, 2, 7, 7, 3), draw(3, 3, 3, 3, 4, seed=1)
    mapped = jax.jit(jax.vmap(lambda x, kernel: ours(x, kernel, (2, 2))))(x, kernels)
    expected = jnp.stack([xla(a, k, (2, 2)) for a, k in zip(x, kernels, strict=True)])
    assert_close(mapped, expected, reduction_length=27)
    one_kernel = jax.jit(jax.vmap(lambda x: ours(x, kernels[0])))(x)
    assert_close(one_kernel[1], xla(x[1], kernels[0]), reduction_length=27)


def test_gradients_of_examples_one_by_one():
    x, kernel = draw(4, 7, 7, 3), draw(3, 3, 3, 4, seed=1)

    def of_each(convolve):
        def energy(kernel, x):
            return jnp.sum(convolve(x[None], kernel, (2, 2)) ** 2)

        return jax.jit(jax.vmap(jax.grad(energy), in_axes=(None, 0)))(kernel, x)

    assert_close(of_each(ours), of_each(xla), reduction_length=27 * 9)


def test_the_cpu_path_is_the_one_that_ran():
    x, kernel = draw(2, 7, 7, 3), draw(3, 3, 3, 4)
    assert not is_xla(ours, x, kernel)
    assert not is_xla(functools.partial(ours, precision=lax.Precision.HIGHEST), x, kernel)
    assert not is_xla(jax.grad(lambda x, kernel: jnp.sum(ours(x, kernel))), x, kernel)
    assert is_xla(xla, x, kernel)


def form_on_a_cpu(taps, **options):
    """The name of the form in which the convolution would run, read off its products."""
    x = jax.ShapeDtypeStruct((128, 20, 20, 32), jnp.float32)
    kernel = jax.ShapeDtypeStruct((taps, taps, 32, 64), jnp.float32)
    text = jax.jit(lambda *inputs: ours(*inputs, (2, 2), **options)).lower(x, kernel).as_text()
    # For 9x9 taps: 50 pairs of rows on a grid of 10x10 points, for each of 4 phases.
    return "fourier" if "50x256x128x" in text else "direct"


def test_a_cpu_takes_the_form_with_less_work():
    assert form_on_a_cpu(taps=9) == "fourier"
    assert form_on_a_cpu(taps=2) == "direct"


def compiled(features=16, taps=3, stride=1, dtype="float32"):
    """Of value, gradient of the images and of the kernel: which a CPU leaves to XLA."""
    x = jax.ShapeDtypeStruct((2, 16, 16, features), dtype)
    kernel = jax.ShapeDtypeStruct((taps, taps, features, 16), dtype)
    convolve = functools.partial(ours, strides=(stride, stride))

    def gradient(argument):
        return lambda x, kernel, g: jax.vjp(convolve, x, kernel)[1](g)[argument]

    g = jax.eval_shape(convolve, x, kernel)
    return [is_xla(convolve, x, kernel), *(is_xla(gradient(a), x, kernel, g) for a in (0, 1))]


def test_small_kernels_at_stride_1_are_left_to_xla_where_it_is_faster():
    assert compiled() == [True, True, False]
    for other in ({"features": 3}, {"taps": 1}, {"taps": 6}, {"stride": 2}, {"dtype": "bfloat16"}):
        assert compiled(**other) == [False] * 3
    x, kernels = draw(3, 2, 10, 10, 16), draw(3, 3, 3, 16, 4)
    assert not is_xla(jax.vmap(ours), x, kernels)
    assert is_xla(jax.vmap(lambda x: ours(x, kernels[0])), x)


def test_of_a_layer_the_gradient_keeps_one_array_and_no_padded_one():
    images = jax.ShapeDtypeStruct((8, 16, 16, 32), jnp.float32)

    def bytes_of(layers):
        def loss(kernels, x):
            for kernel in kernels:
                x = jnp.tanh(ours(x, kernel, (1, 1), "SAME"))
            return jnp.sum(x)

        kernels = [jax.ShapeDtypeStruct((3, 3, 32, 32), jnp.float32)] * layers
        program = jax.jit(jax.grad(loss)).lower(kernels, images).compile()
        return program.memory_analysis().temp_size_in_bytes

    of_a_layer = (bytes_of(8) - bytes_of(4)) / 4
    assert of_a_layer < 1.5 * 4 * math.prod(images.shape)


@pytest.mark.parametrize("infinite", [jnp.inf, jnp.nan])
def test_what_is_not_finite_in_one_place_is_nowhere_else(infinite):
    """The zeros around the images are zeros whatever the gradient of the outputs is."""
    x, kernel, g = draw(2, 5, 5, 32), draw(3, 3, 32, 4, seed=1), jnp.ones((2, 5, 5, 4))
    exact = {"precision": "highest"}  # without transforms
    gradient = jax.vjp(lambda kernel: ours(x, kernel, padding="SAME", **exact), kernel)[1]
    with jax.debug_nans(False):
        expected, found = (np.asarray(*gradient(g.at[0, 0, 0, 0].set(v))) for v in (1, infinite))
    np.testing.assert_array_equal(found[..., 1:], expected[..., 1:])
    assert not np.isfinite(found[1:, 1:, :, 0]).any()


@pytest.mark.parametrize("padding", ["SAME", ((3, 0), (1, 3)), ((-1, 1), (0, -2))])
def test_what_is_left_to_xla_is_right_wherever_windows_lie(padding):
    for outputs in (4, 40):
        assert_agree(draw(2, 11, 12, 16), draw(3, 3, 16, outputs, seed=1), (1, 1), padding)
    assert_agree(draw(2, 11, 12, 16), draw(3, 3, 16, 4, seed=1), (2, 3), padding)


@pytest.mark.parametrize("precision", ["highest", lax.Precision.HIGHEST, ("default", "highest")])
def test_the_highest_precision_takes_no_transform(precision):
    assert form_on_a_cpu(taps=9, precision=precision) == "direct"


def test_the_default_precision_counts_where_none_is_asked_for():
    with jax.default_matmul_precision("highest"):
        assert form_on_a_cpu(taps=9) == "direct"
        assert form_on_a_cpu(taps=9, precision="default") == "fourier"


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_accelerator_gets_its_own_convolution_with_the_precision_asked_for(platform):
    x, kernel = draw(2, 7, 7, 3), draw(3, 3, 3, 4)
    function = functools.partial(ours, precision=lax.Precision.HIGHEST)
    text = jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 1
    assert "stablehlo.dot_general" not in text
    assert "HIGHEST" in text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_default_precision_inside_of_a_program_is_that_of_all_derivatives(platform):
    x, kernel = draw(2, 7, 7, 3), draw(3, 3, 3, 4)

    def loss(x, kernel):
        with jax.default_matmul_precision("highest"):
            return jnp.sum(jnp.sin(ours(x, kernel)))

    traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(x, kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) >= 3
    assert all("HIGHEST" in line and "DEFAULT" not in line for line in lines)
    text = jax.jit(ours).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert "HIGHEST" not in text


def test_the_default_precision_inside_of_a_program_counts_on_a_cpu():
    def precise(x, kernel):
        with jax.default_matmul_precision("highest"):
            return ours(x, kernel)

    x, kernel = draw(8, 20, 20, 32), draw(9, 9, 32, 32, seed=1)
    around = jax.jit(ours)(x, kernel)
    with jax.default_matmul_precision("highest"):
        expected = jax.jit(ours)(x, kernel)
    assert not np.array_equal(around, expected)
    np.testing.assert_array_equal(jax.jit(precise)(x, kernel), expected)


@pytest.mark.parametrize("padding", ["VALID", ((0, 0), (0, 0))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_depthwise_convolution_that_covers_the_image_is_a_sum(padding, dtype):
    x, kernel = draw(2, 7, 5, 4, dtype=dtype), draw(7, 5, 1, 4, seed=1, dtype=dtype)
    depthwise = functools.partial(ours, feature_group_count=4, padding=padding)
    assert not is_xla(depthwise, x, kernel)
    weights = jnp.asarray(draw(2, 1, 1, 4, seed=2, dtype=dtype))

    plain = functools.partial(xla, feature_group_count=4, padding=padding)

    @jax.jit
    def values_and_gradients(x, kernel):
        pullbacks = [jax.vjp(convolve, x, kernel) for convolve in (depthwise, plain)]
        return [(value, *pullback(weights)) for value, pullback in pullbacks]

    for ours_, xlas in zip(*values_and_gradients(x, kernel), strict=True):
        assert ours_.dtype == xlas.dtype
        assert_close(ours_, xlas, reduction_length=35)


@pytest.mark.parametrize(
    ("kernel_shape", "options"),
    [
        ((3, 3, 2, 4), {"feature_group_count": 2}),
        ((3, 3, 1, 4), {"feature_group_count": 4}),
        ((7, 7, 1, 4), {"feature_group_count": 4, "padding": "SAME"}),
        ((7, 7, 1, 8), {"feature_group_count": 4}),
        ((3, 3, 4, 4), {"rhs_dilation": (2, 2)}),
        ((3, 3, 4, 4), {"lhs_dilation": (2, 1), "padding": ((0, 0), (0, 0))}),
        ((3, 3, 4, 4), {"batch_group_count": 2}),
        ((3, 3, 4, 4), {"preferred_element_type": jnp.float32}),
        ((8, 3, 4, 4), {}),  # does not fit: an empty result
        ((3, 3, 4, 0), {}),
    ],
)
def test_anything_else_goes_to_xla(kernel_shape, options):
    x, kernel = draw(2, 7, 7, 4), draw(*kernel_shape)
    assert is_xla(functools.partial(ours, **options), x, kernel) or not ours(x, kernel).size
    np.testing.assert_array_equal(ours(x, kernel, **options), xla(x, kernel, **options))


def test_what_xla_refuses_is_refused():
    with pytest.raises(ValueError, match="feature_group_count"):
        ours(jnp.ones((1, 3, 3, 4)), jnp.ones((3, 3, 2, 4)), feature_group_count=4)
    with pytest.raises(TypeError, match="float32, bfloat16"):
        ours(jnp.ones((1, 3, 3, 4)), jnp.ones((3, 3, 4, 4), jnp.bfloat16))


def test_sides_that_are_not_known_and_a_list_of_precisions_are_taken():
    sides = export.symbolic_shape("b, h, w, 4", constraints=["h >= 8", "w >= 8"])
    kernel = jnp.ones((3, 3, 4, 2))
    function = jax.jit(functools.partial(ours, kernel=kernel, precision=["highest", "highest"]))
    exported = export.export(function)(jax.ShapeDtypeStruct(sides, jnp.float32))
    np.testing.assert_array_equal(exported.call(jnp.ones((2, 9, 8, 4))), np.full((2, 7, 6, 2), 36))
    np.testing.assert_array_equal(function(jnp.ones((2, 9, 8, 4))), np.full((2, 7, 6, 2), 36))


def test_the_sharding_that_is_asked_for_is_that_of_the_result():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    x, kernel = draw(2, 5, 5, 3), draw(3, 3, 3, 4)
    with jax.set_mesh(mesh):
        wanted = PartitionSpec(None, None, None, "data")
        found = jax.jit(functools.partial(ours, out_sharding=wanted))(x, kernel)
        assert jax.typeof(found).sharding.spec == wanted
    assert_close(found, xla(x, kernel), reduction_length=27)


def test_other_layouts_ranks_and_dtypes_go_to_xla():
    x, kernel = draw(2, 3, 7, 7), draw(4, 3, 3, 3)
    np.testing.assert_array_equal(
        conv_general_dilated(x, kernel, (1, 1), "VALID"),
        lax.conv_general_dilated(x, kernel, (1, 1), "VALID"),
    )
    x, kernel = draw(2, 3, 7), draw(4, 3, 3)
    np.testing.assert_array_equal(
        conv_general_dilated(x, kernel, (1,), "VALID"),
        lax.conv_general_dilated(x, kernel, (1,), "VALID"),
    )
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.int32), jnp.ones((2, 2, 2, 1), jnp.int32)
    np.testing.assert_array_equal(ours(x, kernel), np.full((1, 3, 3, 1), 8))


@pytest.mark.parametrize(
    ("image", "kernel", "strides", "worth"),
    [((2, 9, 8, 3), (3, 3, 3, 4), (2, 1), 0), ((4, 8, 9, 3), (5, 5, 3, 4), (1, 1), 1e9)],
    ids=["windows", "fourier"],
)
def test_derivatives_of_every_order_in_both_directions_and_mapped(
    image, kernel, strides, worth, monkeypatch
):
    """Forwards, forwards over backwards, and by kernels of several networks at once."""
    for which in fourier.WORTH:
        monkeypatch.setitem(fourier.WORTH, which, worth)
    x, dx = draw(*image), draw(*image, seed=1)
    k, dk = draw(*kernel, seed=2), draw(*kernel, seed=3)

    def values(convolve):
        def square(x, k):
            return jnp.sum(convolve(x, k, strides) ** 2) / 2

        gradient = jax.grad(square, argnums=(0, 1))
        return (
            jax.jvp(functools.partial(convolve, strides=strides), (x, k), (dx, dk)),
            jax.jvp(gradient, (x, k), (dx, dk)),
            jax.vmap(gradient, (None, 0))(x, jnp.stack([k, dk])),
            jax.grad(lambda x: jnp.sum(jax.vmap(square, (0, None))(x, k)))(jnp.stack([x, dx])),
        )

    found, expected = (jax.jit(values, static_argnums=0)(f) for f in (ours, xla))
    for actual, reference in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert_close(
            actual, reference, reduction_length=math.prod(kernel[:3]) * math.prod(image[:3])
        )
