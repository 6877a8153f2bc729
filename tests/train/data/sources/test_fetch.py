"""Where the files of a set are looked for."""

import importlib.util

import pytest

from tests.train.data.small_files import small_cifar
from train.data.sources import cifar, fetch
from train.system.errors import UserError


def test_without_tensorflow_datasets_files_are_needed(tmp_path, monkeypatch):
    source = small_cifar(tmp_path, cifar.CIFAR10)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="is not installed: .* folder with cifar-10-binary.tar.gz"):
        fetch.load(source)
    assert not fetch.is_at_hand(source)
    assert len(fetch.load(source, data_dir=tmp_path).test) == 4
