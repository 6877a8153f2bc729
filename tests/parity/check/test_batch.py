"""The limits of a batch, and the precisions that have none."""

import numpy as np
import pytest

from parity.check.arithmetic import exact
from parity.check.batch import coarser_precisions, compare_batch, reduction_lengths
from parity.check.comparison import FORWARD, Result, Stage
from parity.check.inputs import cut_to_size, load_images
from parity.check.pairs import SIZES, layout_pair
from parity.check.subjects import Case, find_subject

TINY = SIZES["tiny"]


def test_reduction_lengths_of_the_tiny_network():
    with exact(x64=False):
        pair = layout_pair("reference", TINY, iterations=1, dtype="float32")
    assert reduction_lengths(pair, batch=32) == {
        "conv1": 18,
        "primary_s": 32,
        "primary_u": 32,
        "forward": 96,
        "gradient": 32 * 24,
    }


def test_coarser_precisions_have_errors_but_no_limit():
    _, split = load_images(None, seed=0)
    images = cut_to_size(split, TINY["image_shape"])
    subject = find_subject("layout", "reference")
    with exact(x64=False):
        comparisons = coarser_precisions(subject, "tiny", images, seed=0, batch=2)
    assert all(c.limit is None and c.held for c in comparisons)
    by_stage = {(c.size, c.stage): c.error.relative for c in comparisons}
    assert by_stage["tiny in bfloat16", ("forward", "u_hat")] > 1e-4
    assert by_stage["tiny in TF32", ("forward", "u_hat")] < 1e-2


@pytest.mark.parametrize(
    ("ours", "reference"), [(float("nan"), 3e-6), (-1.0, 3e-6), (1.0, 3e-6), (1 - 1e-6, 1.5e-6)]
)
def test_a_reference_far_from_itself_excuses_rounding_alone(ours, reference, monkeypatch):
    """It is further from capsjax than the limit, and so far from itself in float64."""
    truth = np.ones(3)
    stage = Stage(FORWARD, "v1")
    values = {"float32": np.float32([1, 1, 1 + reference]), "float64": truth}
    monkeypatch.setattr(
        "parity.check.batch.of_reference", lambda pair, *_, **__: {stage: values[pair.dtype.name]}
    )
    monkeypatch.setattr(
        "parity.check.batch.of_capsjax", lambda *_, **__: {stage: np.full(3, ours, np.float32)}
    )
    result, (_, split) = Result("mine", "float32", "digits", 0), load_images(None, seed=0)
    images = cut_to_size(split, TINY["image_shape"])
    with exact(x64=False):
        compare_batch(find_subject("layout", "reference"), Case("tiny", 1, 2), images, result)
    assert result.passed == (ours > 0.9)
    assert {c.limit is None for c in result.comparisons} == {ours > 0.9}
