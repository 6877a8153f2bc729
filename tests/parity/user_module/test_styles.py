"""`check --against` judges modules in the styles of public code as they deserve, fresh weights."""

import shutil
from pathlib import Path

import pytest
import torch

from parity.user_module.checking import Outcome, compare_module, text
from tests.parity import styles


def compare(folder: Path, name: str, **options) -> Outcome:
    shutil.copy(styles.__file__, folder / "net.py")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(getattr(styles, name)().state_dict(), folder / "weights.pt")
    return compare_module(f"{folder / 'net.py'}:{name}", folder / "weights.pt", **options)


@pytest.mark.parametrize("name", ["Views", "ThreeChannels"])
def test_a_module_with_views_after_each_layer_agrees(name, tmp_path):
    """Its images are as a loader gives them, whatever the number of channels."""
    outcome = compare(tmp_path, name)
    assert outcome.passed, text(outcome)
    assert outcome.name == "gram-ai"
    assert all(0 < row.error.relative <= row.limit for row in outcome.comparisons)
    stages = [row.stage.name for row in outcome.comparisons]
    assert [name.split()[-1] for name in stages] == ["float32"] * 2 + ["float64"] * 2, stages


def test_what_is_returned_of_lengths_is_what_the_layout_or_the_user_says(tmp_path):
    """The authors' own class returns a softmax of them, which is compared as it is."""
    assert compare(tmp_path, "Classes").passed
    outcome = compare(tmp_path, "Classes", output_is="lengths")
    assert not outcome.passed
    assert outcome.diagnosis is not None
    assert [str(found) for found in outcome.diagnosis.agreeing] == ["a softmax over the lengths"]


def test_rounding_is_told_from_a_difference(tmp_path):
    """In float32 a softmax over many inputs is as far from float64 in PyTorch as in capsjax."""
    outcome = compare(tmp_path, "AllInputs")
    assert outcome.passed, text(outcome)
    forward, *_ = outcome.comparisons
    assert forward.error.relative > 2e-6
    assert "rounding: from float64 the module is " in text(outcome)
    assert text(outcome).endswith("agree but for rounding.")


def test_a_missing_detach_is_seen_on_fresh_weights(tmp_path):
    """Where routing hardly matters yet, float32 alone would not show it."""
    assert compare(tmp_path, "Flat").passed
    outcome = compare(tmp_path, "NotDetached")
    assert not outcome.passed
    assert "gradients through every iteration" in text(outcome)
