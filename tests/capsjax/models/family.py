"""Every network at a small size, its programs, compiled once, and what holds of all of them."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import create_model, create_routing
from tests.tolerance import assert_close

SMALL: dict[str, dict[str, Any]] = {
    "attention_capsnet": {
        "image_shape": (7, 9, 2),
        "num_classes": 5,
        "backbone_features": (8,),
        "backbone_blocks": (1,),
        "backbone_strides": (2,),
        "primary_types": 3,
        "caps_types": (4, 2),
        "caps_kernels": (2, 2),
        "caps_strides": (1, 1),
        "pose_dim": 9,
    },
    "capsnet": {
        "image_shape": (12, 17, 3),
        "num_classes": 7,
        "conv_features": 8,
        "conv_kernel": 5,
        "primary_types": 3,
        "primary_dim": 4,
        "primary_kernel": 3,
        "class_dim": 6,
        "decoder_hidden": (10, 11),
    },
    "cnn": {
        "image_shape": (6, 5, 2),
        "num_classes": 3,
        "features": (3, 2),
        "kernel_size": 3,
        "hidden": (5, 64),
    },
    "deepcaps": {
        "image_shape": (7, 10, 2),
        "num_classes": 7,
        "conv_features": 5,
        "types": 3,
        "dims": (2, 2),
        "class_dim": 4,
        "decoder_channels": 3,
        "decoder_features": (4,),
        "decoder_strides": (2,),
    },
    "efficient_capsnet": {
        "image_shape": (9, 11, 2),
        "num_classes": 7,
        "features": (4, 6),
        "kernel_sizes": (3, 2),
        "strides": (1, 2),
        "primary_dim": 3,
        "class_dim": 5,
        "decoder_hidden": (8,),
    },
    "matrix_capsnet": {
        "image_shape": (9, 12, 2),
        "num_classes": 3,
        "conv_features": 5,
        "conv_kernel": 3,
        "primary_types": 2,
        "caps_types": (4, 3),
        "caps_kernels": (2, 2),
        "caps_strides": (1, 2),
        "pose_dim": 4,
        "routing": create_routing("em", iterations=2),
    },
    "sr_capsnet": {
        "image_shape": (9, 6, 2),
        "num_classes": 7,
        "width": 2,
        "blocks": 1,
        "caps_types": 3,
        "caps_dim": 4,
        "conv_caps": 1,
    },
    "vb_capsnet": {
        "image_shape": (9, 8, 2),
        "num_classes": 3,
        "conv_features": 4,
        "conv_kernel": 3,
        "primary_types": 2,
        "caps_types": (3,),
        "caps_kernels": (2,),
        "caps_strides": (1,),
        "pose_dim": 4,
        "routing": create_routing("variational-bayes", iterations=2),
    },
}
SMALL["aff_capsnet"] = SMALL["capsnet"]
BATCH = 5


def make(name: str, **options: Any) -> Any:
    with jax.default_prng_impl("rbg"):
        return create_model(name, rngs=nnx.Rngs(0), **{**SMALL.get(name, {}), **options})


def shapes(name: str, **options: Any) -> Any:
    """A network without numbers."""
    return nnx.eval_shape(lambda: make(name, **options))


def output_shapes(name: str, **options: Any) -> Any:
    return nnx.eval_shape(lambda: make(name, **options)(images(name)))


def published(name: str, image_shape: tuple[int, ...], num_classes: int, **options: Any) -> Any:
    """A network of published sizes, without numbers."""
    sizes = {"image_shape": image_shape, "num_classes": num_classes, **options}
    return nnx.eval_shape(lambda: create_model(name, rngs=nnx.Rngs(0), **sizes))


def count(model: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def images(name: str, dtype: Any = jnp.float32, *, seed: int = 0, batch: int = BATCH) -> jax.Array:
    values = np.random.default_rng(seed).uniform(size=(batch, *SMALL[name]["image_shape"]))
    return jnp.asarray(values, dtype)


class Small(NamedTuple):
    """A network in parts: as it is in training and in test, and its numbers.

    `params` are not `initial`: moved a little, so that what starts at zero is seen.
    """

    training: Any
    test: Any
    initial: Any
    params: Any
    stats: Any


@functools.cache
def small(name: str, **options: Any) -> Small:
    model = make(name, **options)
    training, initial, stats = nnx.split(model, nnx.Param, ...)
    model.eval()
    test, _, _ = nnx.split(model, nnx.Param, ...)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype), initial)
    return Small(training, test, initial, params, stats)


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef: Any, params: Any, stats: Any, images: Any, labels: Any = None) -> Any:
    return nnx.merge(graphdef, params, stats, copy=True)(images, labels)


class Step(NamedTuple):
    output: Any
    stats: Any
    gradients: Any


@functools.partial(jax.jit, static_argnums=0)
def _step(graphdef: Any, params: Any, stats: Any, images: Any, labels: Any) -> Step:
    def loss(params: Any) -> Any:
        model = nnx.merge(graphdef, params, stats, copy=True)
        output = model(images, labels)
        targets = jax.nn.one_hot(labels, output.lengths.shape[1])
        value = jnp.sum(capsjax.margin_loss(output.lengths, targets))
        if output.reconstruction is not None:
            value += 0.0005 * jnp.sum(capsjax.reconstruction_loss(output.reconstruction, images))
        return value, (output, nnx.state(model, nnx.Not(nnx.Param)))

    gradients, (output, stats) = jax.grad(loss, has_aux=True)(params)
    return Step(output, stats, gradients)


@functools.cache
def step(name: str, seed: int = 0, **options: Any) -> Step:
    """A training step; with another seed, all images but the first two are others."""
    network = small(name, **options)
    batch = jnp.concatenate([images(name)[:2], images(name, seed=seed)[2:]])
    labels = jnp.arange(BATCH, dtype=jnp.int32) % SMALL[name]["num_classes"]
    return _step(network.training, network.params, network.stats, batch, labels)


def assert_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapes(name, **options)


def assert_every_parameter_learns(gradients: Any, least: float = 0.0) -> None:
    for path, value in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(value).all(), jax.tree_util.keystr(path)
        assert np.abs(value).max() > least, jax.tree_util.keystr(path)


class Contract:
    """What holds of every network of capsules; a subclass says of which.

    Attributes:
        name: of the network.
        below: capsules that vote for the classes.
        dim: of the class capsules.
        terms: of the longest sum on the way.
        normalises: whether there is batch normalisation.
        decodes: whether there is a decoder.
        least_gradient: each parameter has a larger one.
    """

    name: str
    below: int
    dim: int
    terms: int
    normalises = True
    decodes = False
    least_gradient = 0.0

    def test_outputs_have_the_documented_shapes(self):
        output, sizes = step(self.name).output, SMALL[self.name]
        classes = sizes["num_classes"]
        assert output.capsules.pose.shape == (BATCH, classes, self.dim)
        assert output.lengths.shape == (BATCH, classes)
        assert ((output.lengths >= 0) & (output.lengths <= 1)).all()
        np.testing.assert_array_equal(output.lengths, output.capsules.activation)
        assert output.coupling.shape == (BATCH, self.below, classes)
        shape = (BATCH, *sizes["image_shape"]) if self.decodes else None
        assert getattr(output.reconstruction, "shape", None) == shape

    def test_gradients_reach_every_parameter(self):
        assert_every_parameter_learns(step(self.name).gradients, self.least_gradient)

    def test_in_training_a_batch_is_normalised_and_in_test_examples_are_alone(self):
        first, other = step(self.name), step(self.name, seed=1)
        in_training, beside_others = first.output.lengths[:2], other.output.lengths[:2]
        if self.normalises:
            assert np.abs(in_training - beside_others).max() > 1e-4
        else:
            assert_close(in_training, beside_others, reduction_length=self.terms)
        network = small(self.name)
        in_test, alone = (
            run(network.test, network.params, first.stats, images(self.name)[chosen]).lengths[:2]
            for chosen in (jnp.arange(BATCH), jnp.asarray([0, 1, 1, 1, 1]))
        )
        assert_close(in_test, alone, reduction_length=self.terms)
        if self.normalises:
            assert np.abs(in_test - in_training).max() > 1e-4

    def test_coarse_computation_keeps_parameters_and_outputs_in_float32(self):
        exact, coarse = small(self.name), small(self.name, dtype="bfloat16")
        output = run(coarse.training, exact.params, exact.stats, images(self.name))
        dtypes = {leaf.dtype for leaf in jax.tree.leaves((output, coarse.params, coarse.stats))}
        assert dtypes == {jnp.dtype("float32")}
        lengths = step(self.name).output.lengths
        assert_close(output.lengths, lengths, dtype="bfloat16")
        assert (output.lengths != lengths).any()
