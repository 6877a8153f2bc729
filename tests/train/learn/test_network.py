import jax
import numpy as np
import pytest
from flax import nnx

from train.learn.network import (
    build_model,
    count_parameters,
    model_key,
    out_of_memory_is_bad_input,
    require_room,
    seen_shape,
    training_key,
)
from train.presets import get_preset
from train.system.errors import UserError


def test_the_paper_s_network_has_the_paper_s_parameters():
    model = nnx.eval_shape(lambda: build_model(get_preset("mnist"), (28, 28, 1), 10))
    assert count_parameters(nnx.state(model, nnx.Param)) == 8_215_568


def test_the_seed_decides_the_initial_values(config):
    def kernel(seed):
        model = build_model(config.changed(seed=seed), (8, 8, 1), 3)
        return np.asarray(model.class_caps.kernel[...])

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert np.any(kernel(1) != kernel(2))
    assert np.any(kernel(1) != kernel(2**32 + 1))  # of which JAX would take the lower 32 bits


def test_initial_values_and_steps_draw_from_different_keys(config):
    keys = [jax.random.key_data(key(config)) for key in (model_key, training_key)]
    assert np.any(keys[0] != keys[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_options": {"conv_kernel": 9}}, "kernel does not fit on an input of 8x8"),
        ({"model_options": {"conv_fetures": 9}}, "conv_fetures"),
        ({"model_options": {"conv_features": 0, "conv_kernel": 3}}, "conv_features"),
        ({"routing_options": {"softmax": "in"}}, "softmax"),
        ({"dtype": "float64"}, "float64 needs JAX's x64 mode"),
        ({"param_dtype": "float64"}, "float64 needs JAX's x64 mode"),
    ],
)
def test_a_network_that_cannot_be_is_told(config, change, message):
    with pytest.raises(UserError, match=message):
        build_model(config.changed(**change), (8, 8, 1), 3)


@pytest.mark.parametrize(
    "said",
    [
        "RESOURCE_EXHAUSTED: Failed to allocate request for 1 bytes",
        "INTERNAL: Error dispatching computation: Out of memory allocating 1 bytes.",
    ],
)
def test_too_little_memory_is_told(said):
    with (
        pytest.raises(UserError, match="a batch of 512 does not fit in the memory"),
        out_of_memory_is_bad_input(512),
    ):
        raise jax.errors.JaxRuntimeError(said)


def test_other_errors_than_too_little_memory_are_not_hidden():
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
        out_of_memory_is_bad_input(512),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_a_network_that_no_memory_holds_is_refused_before_it_is_made(config):
    require_room(config, (8, 8, 1), 3)
    options = {**config.model.options, "conv_features": 10**7, "primary_types": 10**5}
    huge = config.changed(model_options=options)
    with pytest.raises(UserError, match=r"parameters of [\d,]{15,} bytes, more than the memory"):
        require_room(huge, (8, 8, 1), 3)


def test_the_network_is_built_for_what_is_cropped(config):
    cropped = config.changed(crop=7)
    assert seen_shape(config, (9, 11, 2)) == (9, 11, 2)
    assert seen_shape(cropped, (9, 11, 2)) == (7, 7, 2)
    ours = nnx.eval_shape(lambda: build_model(cropped, (9, 11, 2), 3))
    theirs = nnx.eval_shape(lambda: build_model(config, (7, 7, 2), 3))
    shapes = [jax.tree.map(lambda leaf: leaf.shape, nnx.state(model)) for model in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_a_crop_that_is_larger_than_the_images(config):
    with pytest.raises(UserError, match="--crop is 9, but the images are 10x8: choose 1 to 8"):
        build_model(config.changed(crop=9), (10, 8, 1), 3)
