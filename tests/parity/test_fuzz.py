"""Weights from elsewhere, broken at random: no crash, no code, no memory; a sentence."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.layouts.state_files import read_state, write_state
from tests.fuzz import broken, many, sentence_or
from train.system.errors import UserError

KINDS = (".pt", ".safetensors", ".h5")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """A small file of each kind."""
    folder = tmp_path_factory.mktemp("weights")
    weights = {"conv1.weight": np.ones((2, 1, 3, 3), np.float32), "conv1.bias": np.ones(2, "f4")}
    for kind in KINDS:
        write_state(folder / f"w{kind}", weights)
    return {kind: (folder / f"w{kind}").read_bytes() for kind in KINDS}


@many
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_broken_weights(whole, tmp_path, data, kind):
    path = tmp_path / f"w{kind}"
    path.write_bytes(data.draw(broken(whole[kind])))
    state = sentence_or(read_state, path)
    assert all(isinstance(array, np.ndarray) for array in (state or {}).values())


def test_a_view_that_shows_one_number_too_often_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match="promises tensors of 4,000,000,000,000 bytes, more than"):
        read_state(path)


def test_a_dataset_that_is_all_filling_is_refused(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        file.create_dataset("conv1/kernel:0", (10**6, 10**6), "f4", chunks=(10**3, 10**3))
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="promises tensors of 4,000,000,000,000 bytes, more than"):
        read_state(path)
