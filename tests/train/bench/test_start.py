import os
from functools import partial

import pytest

from train.bench.start import PARTS, seconds_of_parts, seconds_to_begin
from train.cli.bench import _fit
from train.presets import get_preset
from train.system.errors import UserError


def test_a_start_is_measured_to_its_first_line_and_nothing_remains(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    settings = {"model_options": [("conv_features", 4)], "steps": 10**6}  # which nobody waits for
    begun = seconds_to_begin(partial(_fit, "digits", settings, None, 1))
    config = get_preset("digits").changed(
        model_options={**get_preset("digits").model.options, "conv_features": 4}
    )
    parts = seconds_of_parts(config, None, 1, [])
    assert tuple(parts) == PARTS
    assert min(parts.values()) > 0
    # What `fit` does one after the other.
    assert begun > parts["imports"] + parts["tracing"] + parts["compiling"] / 2
    assert not list(tmp_path.iterdir())


def test_a_command_that_ends_before_it_begins_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="ended with code 1 at its start"):
        seconds_to_begin(os.rmdir)  # of a folder that is not there


def test_bad_input_is_told_before_anything_is_timed(tmp_path):
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'none'}"):
        seconds_of_parts(get_preset("mnist"), tmp_path / "none", None, [])
