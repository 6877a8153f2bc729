"""Votes: matrices times poses, matrices times matrices."""

import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.layers.transform import kernel_shape, make_votes
from tests.tolerance import assert_close


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("leading", [(2,), (2, 3, 4)])
def test_a_linear_vote_is_a_matrix_times_a_pose(leading):
    kernel, pose = draw(5, 3, 4, 6), draw(*leading, 5, 6, seed=1)
    votes = make_votes("linear", jnp.asarray(kernel, jnp.float32), jnp.asarray(pose, jnp.float32))
    assert_close(
        votes, np.einsum("ijdk,...ik->...ijd", kernel, pose), dtype="float32", reduction_length=6
    )


@pytest.mark.parametrize("leading", [(2,), (2, 3, 4)])
def test_a_matrix_vote_is_a_pose_times_a_matrix(leading):
    kernel, pose = draw(5, 3, 2, 2), draw(*leading, 5, 4, seed=1)
    votes = make_votes("matrix", jnp.asarray(kernel, jnp.float32), jnp.asarray(pose, jnp.float32))
    matrices = pose.reshape(*leading, 5, 1, 2, 2)
    expected = (matrices @ kernel).reshape(*leading, 5, 3, 4)
    assert_close(votes, expected, dtype="float32", reduction_length=2)


def test_shapes_of_the_matrices():
    assert kernel_shape("linear", 8, 16) == (16, 8)
    assert kernel_shape("matrix", 16, 16) == (4, 4)


@pytest.mark.parametrize("dims", [(8, 8), (16, 9), (9, 16)])
def test_poses_that_are_no_square_matrices_are_refused(dims):
    with pytest.raises(ValueError, match="needs poses that are square matrices"):
        kernel_shape("matrix", *dims)


def test_unknown_transforms_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown transform 'affine', choose from: linear, matrix"):
        kernel_shape("affine", 4, 4)
