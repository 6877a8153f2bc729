"""CapsNet without routing and with shared matrices."""

import jax
import numpy as np

from tests.capsjax.models import family
from tests.tolerance import assert_close


def test_the_published_network_has_one_matrix_a_class():
    model = family.published("aff_capsnet", (28, 28, 1), 10)
    assert model.class_caps.kernel.shape == (1, 10, 16, 8)
    assert family.count(model) == 6_742_288


def test_all_primary_capsules_count_alike():
    below, order = 3 * 6 * 3, np.random.default_rng(1).permutation(3 * 6 * 3)

    @jax.jit
    def routed(images):
        model = family.make("aff_capsnet", decoder_hidden=None)
        primary = model.primary_caps(model.features(images))
        capsules, coupling = model.class_caps(primary)
        turned, _ = model.class_caps(primary._replace(pose=primary.pose[:, order]))
        return capsules.pose, coupling, turned.pose

    pose, coupling, turned = routed(family.images("capsnet"))
    assert_close(coupling, np.full(coupling.shape, 1 / 7, np.float32))
    assert_close(turned, pose, reduction_length=below * 4)
