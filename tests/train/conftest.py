"""What the tests of the training program share: a tiny network and its data."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train.data.small_files import small_mnist
from tests.train.programs import Programs
from train.config.fit_config import FitConfig
from train.data import Dataset, Split, catalog
from train.data.made import multi_mnist
from train.data.official import Source
from train.loop.loop import fit
from train.presets import get_preset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs whose figures nobody looks at, which take as long as such a run."""
    monkeypatch.setattr("train.report.figures.draw_run", lambda *_: None)


@pytest.fixture(scope="session")
def config() -> FitConfig:
    """A network of a few thousand parameters for 8x8 images."""
    return FitConfig.of(
        model_options={
            "conv_features": 8,
            "conv_kernel": 3,
            "primary_types": 2,
            "primary_dim": 4,
            "primary_kernel": 3,
            "primary_stride": 2,
            "class_dim": 4,
            "decoder_hidden": [8],
        },
        batch_size=8,
        steps=6,
        log_every=2,
        evaluate_every=3,
        checkpoint_every=2,
    )


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Forty training, ten test and ten validation images, 8x8, in three classes."""
    rng = np.random.default_rng(0)

    def split(size: int) -> Split:
        return Split(
            images=rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8),
            labels=rng.integers(0, 3, size, dtype=np.int32),
        )

    train, test = split(40), split(10)
    return Dataset("three", train, test, ("a", "b", "c"), split(10))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small CapsNet that took two steps on the embedded digits; no test trains it.

    Tests may evaluate it and leave more files there.
    """
    options = {"conv_features": 4, "primary_types": 2, "decoder_hidden": None}
    digits = get_preset("digits")
    config = digits.changed(
        steps=2, batch_size=32, model_options={**digits.model.options, **options}
    )
    out = tmp_path_factory.mktemp("digits") / "run"
    fit(config, out=out, devices=1)
    return out


@pytest.fixture(scope="session")
def pairs(dataset: Dataset) -> Dataset:
    """Pairs of the same images, on top of each other in 16x16: two classes each."""
    return multi_mnist.make(dataset)


@pytest.fixture(scope="module")
def programs() -> Programs:
    """Assembles programs, of which those that are alike are compiled once in a file of tests."""
    return Programs()


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., tuple[Source, Path]]:
    """Writes four small files like MNIST's; the source they are official for, and their folder."""

    def make(**sizes: int) -> tuple[Source, Path]:
        folder = tmp_path / "files"
        return small_mnist(folder, **sizes), folder

    return make


@pytest.fixture
def mnist_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of forty training and forty test images that pass for the official ones."""
    folder = tmp_path / "files"
    small = small_mnist(folder, train_size=40, test_size=40)
    monkeypatch.setitem(catalog.SOURCES, "mnist", small)
    monkeypatch.setattr(catalog, "_cache", lambda: None)
    return folder


Program = Callable[..., subprocess.CompletedProcess]


def run_python(program: str) -> subprocess.CompletedProcess:
    """Runs the text of a program in a process of its own, which may end in any way."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a program that a test starts: one CPU device, no GPU."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}


@pytest.fixture
def python_m_train(environment: dict[str, str]) -> Program:
    """Runs `python -m train` as a user does."""

    def run(*arguments: str | Path, devices: int = 1) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "train", *map(str, arguments)],
            cwd=ROOT,
            env={**environment, "JAX_NUM_CPU_DEVICES": str(devices)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
