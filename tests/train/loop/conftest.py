import pytest

from train import data
from train.loop import loop
from train.report import figures, loading


@pytest.fixture
def tiny_runs(monkeypatch, dataset, programs):
    """Lets `fit` train on forty examples, without figures and without compiling anything twice."""
    for module in (data, loading):
        monkeypatch.setattr(module, "load_dataset", lambda *_, **__: dataset)
    monkeypatch.setattr(loop, "assemble", programs)
    monkeypatch.setattr(figures, "draw_run", lambda *_: None)
