"""Changed images against what NumPy makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerance import assert_close
from train.study.compare.perturb import PERTURBATIONS, perturb

IMAGES = np.random.default_rng(0).uniform(size=(4, 7, 7, 2)).astype(np.float32)


def changed(kind, strength, images=IMAGES):
    return np.asarray(jax.jit(perturb, static_argnums=0)(kind, strength, jnp.asarray(images)))


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_nothing_changes_without_strength(kind):
    none = 1.0 if kind == "scaling" else 0.0
    assert_close(changed(kind, none), IMAGES)


def test_a_quarter_turn_goes_both_ways():
    turned = changed("rotation", 90.0)
    for image, result, times in zip(IMAGES, turned, (-1, 1, -1, 1), strict=True):
        # The corners of a turned square lie on its edge, where rounding decides.
        expected = np.rot90(image, times)
        assert_close(result[1:-1, 1:-1], expected[1:-1, 1:-1])


def test_a_move_brings_in_zeros_and_goes_both_ways():
    moved = changed("translation", 2 / 7)
    assert_close(moved[0][:, :5], IMAGES[0][:, 2:])
    assert not moved[0][:, 5:].any()
    assert_close(moved[1][:, 2:], IMAGES[1][:, :5])


def test_scaling_keeps_the_centre_and_shrinks_the_rest():
    white = np.ones((1, 9, 9, 1), np.float32)
    small = changed("scaling", 0.5, white)[0, :, :, 0]
    assert small[4, 4] == 1
    np.testing.assert_array_equal(small > 0.5, np.pad(np.ones((5, 5)), 2) > 0)


def test_a_shear_moves_each_row_by_how_far_it_is_from_the_middle():
    sheared = changed("shear", 1.0)
    assert_close(sheared[0][3], IMAGES[0][3])
    assert_close(sheared[0][5, :5], IMAGES[0][5, 2:])
    assert_close(sheared[0][1, 2:], IMAGES[0][1, :5])


def test_noise_is_the_same_each_time_and_stays_in_range():
    once, again = changed("noise", 0.3), changed("noise", 0.3)
    np.testing.assert_array_equal(once, again)
    assert once.min() >= 0
    assert once.max() <= 1
    assert 0.1 < np.abs(once - IMAGES).mean() < 0.3
