"""Weights written for PyTorch: bit by bit what was read, and refused where they would mislead."""

import dataclasses
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.__main__ import main
from parity.layouts.exporting import differences, export_run
from parity.layouts.importing import import_weights
from parity.layouts.state_files import read_state
from parity.layouts.table import get_layout
from parity.reference import OTHERS, REFERENCES
from tests.parity.layouts.dialects import (
    OTHER_SIZES,
    SIZES,
    STRIDE,
    build,
    saved,
    seen_by,
    state_of,
)
from train.config.fit_config import FitConfig
from train.data import load_dataset
from train.learn.pmap import data_mesh, make_scoring_step, replicate
from train.learn.scoring import score
from train.loop.loop import fit
from train.report.evaluate import evaluate
from train.report.loading import load_state
from train.run.folder import load_run
from train.system.errors import UserError

every_layout = pytest.mark.parametrize("name", REFERENCES)


def imported(path: Path, name: str, **sizes) -> Path:
    """A run of a dialect's network, made by the command line."""
    weights = saved(path / f"{name}.pt", build(name, **sizes).state_dict())
    assert (
        main(["import", str(weights), "--out", str(path / name), "--dataset", "digits", *STRIDE])
        == 0
    )
    return path / name


@pytest.fixture(scope="module")
def gram_ai(tmp_path_factory) -> Path:
    """A run of that dialect's network, which is to be left as it is."""
    return imported(tmp_path_factory.mktemp("imported"), "gram-ai")


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, ".pt") for name in REFERENCES), ("adambielski", ".safetensors")]
)
def test_a_state_dict_comes_back_bit_by_bit_and_loads_strictly(name, suffix, tmp_path):
    run, out = imported(tmp_path, name), tmp_path / f"out{suffix}"
    export_run(run, layout=name, out=out)
    tensors = {key: torch.from_numpy(value) for key, value in read_state(out).items()}
    for key, value in build(name).state_dict().items():
        assert torch.equal(tensors[key].view(torch.int32), value.view(torch.int32)), key
    other = REFERENCES[name](**SIZES)
    other.load_state_dict(tensors, strict=True)


@pytest.mark.parametrize("name", ["adambielski", "laubonghaudoi"])
def test_without_a_decoder_too(name, tmp_path):
    run, out = imported(tmp_path, name, decoder_hidden=None), tmp_path / "out.pt"
    export_run(run, layout=name, out=out)
    model = build(name, decoder_hidden=None)
    expected = state_of(model)
    tensors = torch.load(out, weights_only=True)
    model.load_state_dict(tensors, strict=True)
    for key, value in expected.items():
        assert torch.equal(tensors[key], value), key


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_evaluated_alike_and_comes_back_bit_by_bit(name, tmp_path):
    reference, out = build(name).eval(), tmp_path / "out.pt"
    path = saved(tmp_path / "weights.pt", reference.state_dict())
    import_weights(path, layout="auto", out=tmp_path / "run", dataset="digits")
    test = load_dataset("digits").test
    expected = predictions_of_pytorch(reference, test)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(predictions_of_run(tmp_path / "run", test), expected)
    accuracy = evaluate(tmp_path / "run", devices=1)["accuracy"]
    assert accuracy == pytest.approx((expected == test.labels).mean())

    exported = export_run(tmp_path / "run", layout=name, out=out)
    assert exported.parameters == sum(p.numel() for p in reference.parameters())
    tensors = torch.load(out, weights_only=True)
    back = OTHERS[name](**OTHER_SIZES[name])
    back.load_state_dict(tensors, strict=True)
    for key, value in reference.state_dict().items():
        assert torch.equal(tensors[key], value), key
        assert tensors[key].dtype == value.dtype, key


def test_what_another_network_computes_otherwise_is_named(tmp_path):
    path = saved(tmp_path / "weights.pt", build("yl-1993").state_dict())
    import_weights(path, layout="yl-1993", out=tmp_path / "run", dataset="digits")
    run = load_run(tmp_path / "run")
    options = {**run.config.model.options, "competition": "all", "caps_strides": [2, 1]}
    routing = {**run.config.model.routing_options, "min_variance": 0.0005}
    config = run.config.changed(model_options=options, routing_options=routing)
    dataclasses.replace(run, config=config).save()
    lines = refused(tmp_path / "run", layout="yl-1993", out=tmp_path / "o.pt").splitlines()[1:]
    assert lines == [
        "  model_options competition: 'all', expected 'patch'",
        "  routing_options min_variance: 0.0005, expected 1e-08",
    ]
    text = refused(tmp_path / "run", layout="reference", out=tmp_path / "o.pt")
    assert "model: 'matrix_capsnet', expected 'capsnet'" in text


# --- What is refused


def refused(*arguments, **keywords) -> str:
    with pytest.raises(UserError) as raised:
        export_run(*arguments, **keywords)
    return str(raised.value)


def test_a_layout_that_cannot_say_what_the_run_computes(gram_ai, tmp_path):
    out = tmp_path / "out.pt"
    text = refused(gram_ai, layout="cedrickchee", out=out)
    assert "computes something else than cedrickchee" in text
    fields = {line.strip().partition(":")[0] for line in text.splitlines()[1:]}
    assert fields == {
        "input_mean",
        "input_std",
        "margin_of",
        "mask_in_training",
        "model_options primary_squash",
        "routing_options softmax_over",
        "routing_options shared_logits",
    }
    assert not out.exists()


CHANGES = [
    ("input_std", {"input_std": 2.0}),
    ("routing_iterations", {"routing_iterations": 4}),
    ("routing_options detach", {"routing_options": {"softmax_over": "in", "detach": True}}),
    ("margin_power", {"margin_power": 1}),
    ("margin_weight", {"margin_weight": 0.5}),
    ("reconstruction_weight", {"reconstruction_weight": 0.1}),
    ("mask_in_test", {"mask_in_test": "label"}),
    ("model_options primary_scale", {"model_options": {"primary_scale": 0.5}}),
    ("model_options shared_transform", {"model_options": {"shared_transform": True}}),
]


@pytest.mark.parametrize(("field", "change"), CHANGES)
def test_each_difference_is_named(field, change, gram_ai):
    run = load_run(gram_ai)
    if of_model := change.get("model_options"):
        change = {"model_options": {**run.config.model.options, **of_model}}
    changed = dataclasses.replace(run, config=run.config.changed(**change))
    (line,) = differences(changed, get_layout("gram-ai"))
    assert line.startswith(f"{field}: ")


def test_a_difference_can_be_overruled(gram_ai, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "out.pt"
    run = load_run(shutil.copytree(gram_ai, folder))
    dataclasses.replace(run, config=run.config.changed(margin_power=1)).save()
    assert "margin_power: 1, expected 2" in refused(folder, layout="gram-ai", out=out)
    assert not out.exists()
    exported = export_run(folder, layout="gram-ai", out=out, force=True)
    assert len(exported.differences) == 1
    build("gram-ai").load_state_dict(torch.load(out, weights_only=True), strict=True)


def test_what_no_result_depends_on_is_no_difference(gram_ai):
    run = load_run(gram_ai)
    options = {**run.config.model.routing_options, "squash": {"axis": "pose"}, "detach": False}
    config = run.config.changed(routing_options=options, batch_size=7, seed=3)
    assert differences(dataclasses.replace(run, config=config), get_layout("gram-ai")) == []


def test_parameters_that_the_layout_has_not(tmp_path, capsys):
    run, out = imported(tmp_path, "adambielski"), tmp_path / "out.pt"
    arguments = ["export", str(run), "--layout", "reference", "--out", str(out), "--force"]
    assert main(arguments) == 2
    assert "not in the layout: class_caps.routing.prior" in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_is_there_stays_as_it_is(gram_ai, tmp_path):
    run, out = gram_ai, tmp_path / "out.pt"
    out.write_bytes(b"thesis")
    assert "out.pt exists: replace it (--overwrite)" in refused(run, layout="gram-ai", out=out)
    assert out.read_bytes() == b"thesis"
    export_run(run, layout="gram-ai", out=out, overwrite=True)
    assert len(torch.load(out, weights_only=True)) == 17
    assert not list(tmp_path.glob(".*.new"))


def test_files_that_cannot_be(gram_ai, tmp_path):
    run = gram_ai
    text = refused(run, layout="gram-ai", out=tmp_path / "out.h5")
    assert "must have one of: .pt, .pth, .safetensors" in text
    text = refused(run, layout="gram-ai", out=tmp_path / "none" / "out.pt")
    assert "out.pt cannot be written" in text
    assert "holds no run" in refused(tmp_path, layout="gram-ai", out=tmp_path / "out.pt")
    assert "unknown layout" in refused(run, layout="gram", out=tmp_path / "out.pt")


# --- A network's whole way: trained in PyTorch, in capsjax, and back in PyTorch

TRAINED = {
    "image_shape": (8, 8, 1),
    "conv_features": 32,
    "conv_kernel": 3,
    "primary_types": 4,
    "primary_dim": 8,
    "primary_kernel": 3,
    "class_dim": 8,
    "decoder_hidden": (32,),
}


def test_a_network_trained_in_pytorch_goes_on_in_capsjax_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr("train.report.figures.draw_run", lambda *_: None)
    dataset = load_dataset("digits")
    reference = REFERENCES["reference"](**TRAINED)
    train_in_pytorch(reference, dataset.train, steps=250)
    path, out = saved(tmp_path / "trained.pt", reference.state_dict()), tmp_path / "run"

    import_weights(path, layout="auto", out=out)
    expected = predictions_of_pytorch(reference, dataset.test)
    np.testing.assert_array_equal(predictions_of_run(out, dataset.test), expected)
    accuracy = (expected == dataset.test.labels).mean()
    assert accuracy > 0.9
    assert evaluate(out, devices=1)["accuracy"] == pytest.approx(accuracy)

    # What `python -m train fit --resume --out RUN --steps 60` does.
    config = load_run(out).config.changed(steps=60)
    summary = fit(config, out=out, resume=True, devices=1)
    assert summary["steps"] == 60
    trained = predictions_of_run(out, dataset.test)
    assert (trained == dataset.test.labels).mean() == pytest.approx(summary["test.accuracy"])

    exported = export_run(out, layout="reference", out=tmp_path / "back.pt")
    assert exported.step == 60
    back = REFERENCES["reference"](**TRAINED)
    back.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True), strict=True)
    np.testing.assert_array_equal(predictions_of_pytorch(back, dataset.test), trained)
    moved = functional.mse_loss(back.conv1.weight, reference.conv1.weight)
    assert moved > 0


def train_in_pytorch(model: torch.nn.Module, split, steps: int) -> None:
    torch.manual_seed(0)
    images, labels = seen_by(model, split.images), torch.from_numpy(split.labels.astype(np.int64))
    adam = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (32,))
        adam.zero_grad()
        seen, truth = images[chosen], labels[chosen]
        model.losses(model(seen, truth), seen, truth)["total"].backward()
        adam.step()


@torch.no_grad()
def predictions_of_pytorch(model: torch.nn.Module, split) -> np.ndarray:
    return model(seen_by(model, split.images))["lengths"].argmax(dim=1).numpy()


def predictions_of_run(folder: Path, split) -> np.ndarray:
    run, mesh = load_run(folder), data_mesh(1, devices=1)
    graphdef, state = load_state(run, "last", devices=1)
    step = make_scoring_step(graphdef, run.config, mesh)
    return score(step, replicate(state, mesh), split, mesh).predictions


def test_a_routing_of_ones_own_is_in_no_layout(tmp_path, monkeypatch):
    run = Namespace(config=FitConfig.of(routing="mine.py:Mine"))
    monkeypatch.setattr("parity.layouts.exporting.load_run", lambda _: run)
    with pytest.raises(UserError, match=r"routes with mine.py:Mine, .* nothing is exported"):
        export_run(tmp_path, layout="reference", out=tmp_path / "weights.pt")
