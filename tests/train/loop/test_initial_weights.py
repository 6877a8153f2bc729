"""A run that starts from the weights of another: what is taken, what starts anew, what is not."""

import json
import shutil

import jax
import numpy as np
import pytest

import capsjax
from tests.train.saved import arrays
from train import data
from train.data import Dataset, Split
from train.learn.trainer import assemble
from train.loop import loop
from train.loop.initial_weights import start_from_weights
from train.loop.loop import fit
from train.report import figures
from train.report.loading import load_model, network_of
from train.run.folder import load_run
from train.system.errors import UserError

CLASSES = {"class_caps.kernel", "decoder.layers.0.kernel"}
"""What depends on the number of classes."""


@pytest.fixture(scope="module")
def tiny(dataset, programs):
    """Lets `fit` train on forty examples, without figures and without compiling twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "assemble", programs)
        patch.setattr(data, "load_dataset", lambda *_, **__: dataset)
        patch.setattr(figures, "draw_run", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def source(tiny, config, tmp_path_factory):
    """A run, beside it `run.safetensors`, and a file of the same without the decoder."""
    out = tmp_path_factory.mktemp("source") / "run"
    fit(config, out=out, devices=1)
    run = load_run(out)
    network = network_of(run, load_model(run, "last"))
    capsjax.save(network, out.parent / "run.safetensors")
    capsjax.save(network, out.parent / "less.safetensors", decoder=False)
    return out


def relabelled(dataset, names):
    def split(some):
        labels = np.arange(len(some.images), dtype=np.int32) % len(names)
        return Split(some.images, labels)

    return Dataset("other", split(dataset.train), split(dataset.test), names)


def weights(state):
    trees = (state.params, state.model_state)
    flat = [leaf for tree in trees for leaf in jax.tree_util.tree_leaves_with_path(tree)]
    name = jax.tree_util.keystr
    return {name(p, simple=True, separator="."): np.asarray(leaf) for p, leaf in flat}


def started(config, dataset, init_from, **options):
    """The weights before and after a trainer was given those of another run."""
    trainer = assemble(config.changed(init_from=str(init_from), **options), dataset, devices=1)
    before = weights(trainer.state)
    start_from_weights(trainer)
    return before, weights(trainer.state)


def own(source):
    return {
        name: np.asarray(value)
        for name, value in capsjax.models.tensors_of(load_model(load_run(source), "last")).items()
    }


def same(some, others):
    return {name for name, value in some.items() if np.array_equal(value, others[name])}


@pytest.mark.parametrize("form", ["run", "run.safetensors"])
def test_all_weights_are_taken_from_a_run_or_file(config, dataset, source, form, capsys):
    before, after = started(config, dataset, source.parent / form, seed=1, ema_decay=0.9)
    assert same(after, own(source)) == after.keys()
    assert not same(before, after) & CLASSES
    assert capsys.readouterr().err == ""


def test_more_classes_start_anew_where_weights_depend_on_them(config, dataset, source, capsys):
    five = relabelled(dataset, ("a", "b", "c", "d", "e"))
    before, after = started(config, five, source, seed=1)
    assert same(before, after) >= CLASSES
    taken = after.keys() - CLASSES
    assert same({name: after[name] for name in taken}, own(source)) == taken
    told = capsys.readouterr().err
    assert f"{', '.join(sorted(CLASSES))} start anew: it has 3 classes, and other has 5" in told


def test_classes_of_other_names_are_told(config, dataset, source, capsys):
    _, after = started(config, relabelled(dataset, ("a", "x", "c")), source, seed=1)
    assert same(after, own(source)) == after.keys()
    assert "its classes have other names, such as 'b' for 'x'" in capsys.readouterr().err


def test_a_decoder_and_a_routing_of_its_own_start_anew(config, dataset, source, capsys):
    less = source.parent / "less.safetensors"
    before, after = started(config, dataset, less, seed=1, routing="dynamic-prior")
    anew = {name for name in after if "decoder" in name or "prior" in name}
    assert same(before, after) >= anew
    assert {"class_caps.routing.prior", "decoder.layers.0.bias"} <= anew
    told = capsys.readouterr().err
    assert "class_caps.routing.prior, decoder.layers.0.bias," in told
    assert "start anew: it has none of this form" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_from": "none"}, "--init-from there is no file none"),
        (
            {"model": "cnn", "model_options": {}, "routing": "dynamic"},
            "is a network capsnet, and this one is to be cnn: choose --model capsnet",
        ),
        ({"primary_types": 3}, "with primary_types=2, and this one is to have primary_types=3"),
        ({"crop": 7}, r"for images of \(8, 8, 1\), and these are of \(7, 7, 1\)"),
        ({"freeze": ["class_caps"]}, "--freeze would keep class_caps.kernel at its initial values"),
    ],
)
def test_weights_that_do_not_fit(config, dataset, source, options, message):
    if "primary_types" in options:
        options = {"model_options": {**config.model.options, **options}}
    five = relabelled(dataset, ("a", "b", "c", "d", "e"))
    with pytest.raises(UserError, match=message):
        started(config, five, **{"init_from": source, **options})


def test_a_run_goes_on_exactly_when_its_beginning_is_gone(config, dataset, source, tmp_path):
    begin = tmp_path / "begin"
    shutil.copytree(source, begin)
    config = config.changed(
        init_from=str(begin), freeze=["features", "primary_caps"], schedule="constant", seed=1
    )
    fit(config, out=tmp_path / "whole", devices=1)
    fit(config.changed(steps=4), out=tmp_path / "parts", devices=1)
    shutil.rmtree(begin)
    fit(config, out=tmp_path / "parts", devices=1, resume=True)
    whole, parts = arrays(tmp_path / "whole"), arrays(tmp_path / "parts")
    assert all(map(np.array_equal, whole, parts))
    assert len(whole) == len(parts)
    trained, first = own(tmp_path / "whole"), own(source)
    kept = {name for name in trained if name.partition(".")[0] in ("features", "primary_caps")}
    assert {name for name in trained if trained[name].tobytes() == first[name].tobytes()} == kept
    saved = json.loads((tmp_path / "whole" / "config.json").read_text())["config"]
    assert saved["model"]["init_from"] == str(begin)
    assert saved["optimizer"]["freeze"] == ["features", "primary_caps"]
    with pytest.raises(UserError, match="differs in: freeze"):
        fit(config.changed(freeze=[]), out=tmp_path / "whole", devices=1, resume=True)


def test_nothing_is_written_where_there_are_no_weights(tiny, config, tmp_path):
    for resume in (False, True):
        with pytest.raises(UserError, match="there is no file"):
            fit(config.changed(init_from="none"), out=tmp_path / "a", devices=1, resume=resume)
        assert not (tmp_path / "a").exists()


def test_a_run_may_be_replaced_by_one_that_starts_from_it(config, source, tmp_path):
    shutil.copytree(source, tmp_path / "run")
    config = config.changed(init_from=str(tmp_path / "run"), freeze=["features"], steps=1)
    fit(config, out=tmp_path / "run", devices=1, overwrite=True)
    after, before = own(tmp_path / "run"), own(source)
    assert np.array_equal(after["features.conv.kernel"], before["features.conv.kernel"])
