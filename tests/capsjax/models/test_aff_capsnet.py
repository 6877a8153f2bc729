"""CapsNet without routing and with shared matrices."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import create_model
from tests.tolerance import assert_close


def test_the_published_network_has_one_matrix_a_class():
    model = nnx.eval_shape(
        lambda: create_model(
            "aff_capsnet", image_shape=(28, 28, 1), num_classes=10, rngs=nnx.Rngs(0)
        )
    )
    assert model.class_caps.kernel.shape == (1, 10, 16, 8)
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count == 6_742_288


def test_all_primary_capsules_count_alike():
    model = create_model(
        "aff_capsnet",
        image_shape=(6, 5, 1),
        num_classes=3,
        conv_features=4,
        conv_kernel=3,
        primary_types=2,
        primary_dim=4,
        primary_kernel=2,
        primary_stride=1,
        decoder_hidden=None,
        rngs=nnx.Rngs(0),
    )
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 6, 5, 1)), jnp.float32)
    below = model.primary_caps(model.features(images))
    capsules, coupling = model.class_caps(below)
    assert_close(coupling, np.full(coupling.shape, 1 / 3, np.float32))
    order = np.random.default_rng(1).permutation(below.pose.shape[1])
    turned, _ = model.class_caps(below._replace(pose=below.pose[:, order]))
    assert_close(turned.pose, capsules.pose, reduction_length=below.pose.shape[1] * 4)
