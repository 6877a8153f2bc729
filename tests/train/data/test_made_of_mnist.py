"""Sets that are made of MNIST, from its files to the result of a run."""

import pytest

from train.config.fit_config import FitConfig
from train.loop.loop import fit
from train.report.evaluate import evaluate
from train.report.predict import predict
from train.system.errors import UserError


def small(config: FitConfig) -> FitConfig:
    """Two steps of a network with few capsules in images of 36x36 and more."""
    options = {**config.model.options, "conv_stride": 4, "primary_stride": 4}
    return config.changed(steps=2, evaluate_every=2, model_options=options)


def test_pairs_from_files_to_figures(config, mnist_files, tmp_path):
    config = small(config).changed(dataset="multi_mnist")
    folder = tmp_path / "run"
    summary = fit(config, out=folder, data_dir=mnist_files, devices=2)
    assert summary["test.examples"] == 40
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "curves.png",
        "reconstructions.png",
        "dimensions.png",
    }
    more = evaluate(folder, data_dir=mnist_files, test_examples=300, inspect=True, devices=2)
    assert more["examples"] == 300
    names = {path.name for path in (folder / "evaluations").iterdir()}
    assert names == {"multi_mnist-last-300-examples.json"}
    (result,) = predict(folder, [folder / "figures" / "curves.png"])
    lengths = result["lengths"]
    assert result["classes"] == sorted(lengths, key=lengths.get, reverse=True)[:2]
    with pytest.raises(UserError, match="choose 1 to 40000"):
        evaluate(folder, data_dir=mnist_files, test_examples=40_001)


def test_digits_placed_at_random_and_then_transformed(config, mnist_files, tmp_path):
    config = small(config).changed(dataset="mnist-40x40", max_shift=6)
    folder = tmp_path / "run"
    summary = fit(config, out=folder, data_dir=mnist_files, devices=1)
    assert summary["test.examples"] == 40
    transformed = evaluate(folder, dataset="affnist-generated", data_dir=mnist_files, devices=1)
    assert (transformed["examples"], transformed["dataset"]) == (40, "affnist-generated")
    with pytest.raises(UserError, match="1.mat does not exist"):
        evaluate(folder, dataset="affnist", data_dir=mnist_files)
