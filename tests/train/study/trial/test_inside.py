"""What is inside of a network, on one whose capsules are known to be dead or starved."""

import numpy as np
import pytest

from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.learn.network import build_model
from train.presets import get_preset
from train.run.folder import Run
from train.study.trial import inside
from train.study.trial.inside import _starved, look

HIDDEN = 5


@pytest.fixture
def looked(dataset, monkeypatch, tmp_path):
    """Looks into a network of five hidden and ten class capsules, which a function has changed."""
    options = {"conv_features": 8, "primary_types": 4, "hidden_capsules": [HIDDEN]}
    digits = get_preset("digits")
    config: FitConfig = digits.changed(model_options={**digits.model.options, **options})
    run = Run(tmp_path, config, (8, 8, 1), dataset.class_names)

    def of(change):
        model = build_model(config, (8, 8, 1), 10)
        change(model)
        monkeypatch.setattr(inside, "load_run", lambda folder: run)
        monkeypatch.setattr(inside, "load_model", lambda run, which: model)
        monkeypatch.setattr(inside, "load_split", lambda *args, **more: dataset.test)
        return look.__wrapped__(tmp_path, None)

    return of


def scale(factor, capsules):
    def change(model):
        kernel = model.hidden_caps[0].kernel
        kernel[...] = (30 * kernel[...]).at[:, capsules].multiply(factor)

    return change


def test_capsules_without_length_are_dead_and_get_no_gradient(looked):
    alive = looked(scale(1, slice(None)))
    found = looked(scale(1e-9, np.array([1, 3])))
    assert_close(found.dead - alive.dead, 100 * 2 / (HIDDEN + 10), dtype=np.float32)
    assert found.starved >= 100 * 2 / (HIDDEN + 10) - 1e-9
    assert alive.starved < found.starved


def test_a_capsule_is_starved_below_a_tenth_of_an_equal_share():
    gradient = np.zeros((2, 4, 3, 1), np.float32)
    gradient[0, :, 1, 0] = [1, -1.8, 0, 0.06]  # the mean of the lengths is 0.715
    gradient[1, 3, 2, 0] = 0.036
    assert _starved(gradient).tolist() == [False, False, True, True]
    gradient[1, 3, 2, 0] = 0.045
    assert _starved(gradient).tolist() == [False, False, True, False]


def test_entropy_is_a_share_of_that_of_uniform_coupling(looked):
    # Votes without length leave the coupling as it starts: uniform.
    found = looked(scale(0, slice(None)))
    assert_close(found.entropy, 100.0, dtype=np.float32, reduction_length=256 * 10)
    assert looked(scale(1, slice(None))).entropy < 99.9
