"""Evaluation batches: every example counts exactly once."""

import numpy as np
import pytest

from train.data import padded_batches
from train.system.errors import UserError


@pytest.mark.parametrize("batch_size", [1, 4, 22, 23, 24, 100])
def test_every_example_once_and_in_order(split, batch_size):
    batches = list(padded_batches(split, batch_size))
    assert len(batches) == -(-len(split) // batch_size)
    for (images, labels, parts), mask in batches:
        assert parts is None
        assert images.shape == (batch_size, *split.images.shape[1:])
        assert labels.shape == mask.shape == (batch_size,)
        assert (images.dtype, labels.dtype, mask.dtype) == (np.uint8, np.int32, np.float32)

    images = np.concatenate([batch.images for batch, _ in batches])
    labels = np.concatenate([batch.labels for batch, _ in batches])
    mask = np.concatenate([mask for _, mask in batches])
    assert mask.sum() == len(split)
    np.testing.assert_array_equal(images[mask == 1], split.images)
    np.testing.assert_array_equal(labels[mask == 1], split.labels)
    assert not images[mask == 0].any()
    assert not labels[mask == 0].any()


def test_a_batch_of_nothing(split):
    with pytest.raises(UserError, match="batch size is 0"):
        list(padded_batches(split, 0))
