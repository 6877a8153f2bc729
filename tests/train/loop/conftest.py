import pytest

from train.config import settings
from train.loop import loop
from train.report import loading


@pytest.fixture
def tiny_runs(monkeypatch, dataset, programs):
    """Lets `fit` train on forty examples, without figures and without compiling anything twice."""
    for module in (settings, loading):
        monkeypatch.setattr(module, "load_dataset", lambda *_, **__: dataset)
    monkeypatch.setattr(loop, "assemble", programs)
    monkeypatch.setattr(loop, "draw_run", lambda *_: None)
