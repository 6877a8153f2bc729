"""`parity` needs PyTorch: its tests carry the mark `torch`, and are not collected without it."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent

collect_ignore_glob = ["*"]
if importlib.util.find_spec("torch") is not None:
    collect_ignore_glob = []
    import torch

    # The processes that share the tests out keep all cores busy: of two threads in each, one waits.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.torch)
