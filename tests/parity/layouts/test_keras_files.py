"""Keras' .h5 files: what is read, what is written, and files that are none or show another."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from parity.__main__ import main
from parity.layouts.keras_files import told_options
from parity.layouts.state_files import read_state
from tests.parity.layouts.dialects import STRIDE, build, state_of
from tests.parity.layouts.test_import_files import refused, same
from train.run.folder import load_run


def keras_file(path: Path, dense: list[str], *, nested: bool, whole_model: bool = False) -> Path:
    """The Keras dialect's weights as Keras 2 writes them, its dense layers called so."""
    state = state_of(build("xifengguo-keras"))
    layers: dict[str, dict[str, torch.Tensor]] = {"input_1": {}}
    for name in ("conv1", "primarycap_conv2d"):
        layers[name] = {
            f"{name}/kernel:0": state[f"{name}.weight"].permute(2, 3, 1, 0),
            f"{name}/bias:0": state[f"{name}.bias"],
        }
    layers["digitcaps"] = {"digitcaps/W:0": state["digitcaps.W"]}
    for number, name in enumerate(dense, 1):
        group = layers.setdefault("decoder" if nested else name, {})
        group[f"{name}/kernel:0"] = state[f"decoder.dense_{number}.weight"].T
        group[f"{name}/bias:0"] = state[f"decoder.dense_{number}.bias"]
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        if whole_model:
            file.create_group("optimizer_weights")["iterations:0"] = 3
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, tensor in arrays.items():
                group[name] = tensor.contiguous().numpy()
    return path


@pytest.mark.parametrize(
    ("dense", "nested", "whole_model"),
    [
        (["dense_1", "dense_2", "dense_3"], True, False),
        (["dense", "dense_1", "dense_2"], True, True),
        (["dense_9", "dense_10", "dense_11"], False, False),
    ],
)
def test_keras_weights_are_read_as_pytorch_has_them(dense, nested, whole_model, tmp_path):
    path = keras_file(tmp_path / "w.h5", dense, nested=nested, whole_model=whole_model)
    same(read_state(path), state_of(build("xifengguo-keras")))


def test_keras_weights_there_and_back_are_the_same_file(tmp_path):
    path = keras_file(tmp_path / "w.h5", ["dense_1", "dense_2", "dense_3"], nested=True)
    run, out = tmp_path / "run", tmp_path / "out.h5"
    assert main(["import", str(path), "--out", str(run), *STRIDE]) == 0
    assert main(["export", str(run), "--layout", "xifengguo-keras", "--out", str(out)]) == 0

    def content(path: Path) -> dict[str, np.ndarray]:
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]} if hasattr(item, "dtype") else {})
            )
            for layer in file.attrs["layer_names"]:
                for name in file[layer].attrs["weight_names"]:
                    assert name in file[layer], name
        return found

    written, original = content(out), content(path)
    assert set(written) == set(original)
    for name, array in original.items():
        np.testing.assert_array_equal(written[name], array)


def test_hdf5_that_is_not_of_keras_2(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3)
    assert "no layer_names and is no file of weights of Keras 2" in refused(tmp_path / "w.h5")


def test_only_the_keras_layout_has_hdf5_files(tmp_path, capsys):
    path = keras_file(tmp_path / "w.h5", ["dense", "dense_1", "dense_2"], nested=True)
    assert main(["import", str(path), "--layout", "gram-ai", "--out", str(tmp_path / "r")]) == 2
    assert "must be one of: .pt, .pth, .safetensors" in capsys.readouterr().err


# --- What a file of a whole model tells beside its weights


def told(path: Path, *following: tuple[str, dict], routings: int = 3, **conv: object) -> list[str]:
    """Adds a description as Keras 2 writes it; the arguments that import the file."""
    layers = [
        ("InputLayer", {}),
        ("Conv2D", {"activation": "linear"} | conv),
        *following,
        ("Conv2D", {"activation": "linear"}),
        ("CapsuleLayer", {"num_capsule": 10, "routings": routings}),
        ("Model", {"layers": [{"class_name": "Dense", "config": {"name": "dense_1"}}]}),
    ]
    described = [{"class_name": k, "config": {"name": k.lower(), **c}} for k, c in layers]
    keras_file(path, ["dense_1", "dense_2", "dense_3"], nested=True, whole_model=True)
    with h5py.File(path, "a") as file:
        model = {"class_name": "Model", "config": {"layers": described}}
        file.attrs["model_config"] = json.dumps(model).encode()
    return ["import", str(path), "--out", str(path.with_name("run")), *STRIDE]


@pytest.mark.parametrize(
    ("following", "conv", "slope"),
    [
        ([], {"activation": "relu"}, 0.0),
        ([("ReLU", {"max_value": None})], {}, 0.0),
        ([("Activation", {"activation": "relu"})], {}, 0.0),
        ([("LeakyReLU", {"alpha": 0.3})], {}, 0.3),
        ([("LeakyReLU", {"negative_slope": 0.1})], {}, 0.1),
        (
            [],
            {"activation": {"class_name": "LeakyReLU", "config": {"name": "a", "alpha": 0.2}}},
            0.2,
        ),
        ([], {}, 1.0),
    ],
)
def test_the_activation_of_a_whole_model_is_read(following, conv, slope, tmp_path):
    told(tmp_path / "w.h5", *following, **conv)
    assert told_options(tmp_path / "w.h5") == {"conv_slope": slope, "routing_iterations": 3}


def test_a_whole_model_that_computes_otherwise_is_refused_with_the_options(tmp_path, capsys):
    """It had been imported with a plain rectifier and three iterations, without a word."""
    arguments = told(tmp_path / "w.h5", ("LeakyReLU", {"alpha": 0.3}), routings=2)
    assert main(arguments) == 2
    words = capsys.readouterr().err.strip().partition(": import it with ")[2].rstrip(".").split()
    assert not (tmp_path / "run").exists()
    assert main([*arguments, *words]) == 0
    config = load_run(tmp_path / "run").config
    assert (config.model.options["conv_slope"], config.model.routing_iterations) == (0.3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is damaged"),
        ("{", "is damaged"),
        (
            '{"class_name": "Conv2D", "config": {"name": "a", "activation": "tanh"}}',
            "has the activation tanh after its first convolution",
        ),
    ],
)
def test_a_description_that_cannot_be_followed_is_told(text, message, tmp_path, capsys):
    arguments = told(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        del file.attrs["model_config"]
        file.attrs.create("model_config", np.bytes_(text[:60_000]))
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


# --- Models within models


def keras(path: Path, datasets: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = sorted({name.partition("/")[0].encode() for name in datasets})
        for name, array in datasets.items():
            file[name] = array
    return path


def test_no_tensor_of_a_model_within_a_model_is_lost(tmp_path):
    names = [
        f"{model}/{layer}/{kind}:0"
        for model in ("encoder", "head")
        for layer in ("conv1", "conv2")
        for kind in ("kernel", "bias")
    ]
    datasets = {name: np.full(3, n, np.float32) for n, name in enumerate(names)}
    datasets["caps/caps_1/W:0"] = np.zeros(2, np.float32)
    state = read_state(keras(tmp_path / "w.h5", datasets))
    assert len(state) == len(datasets)
    assert sorted(state)[:3] == ["caps.W", "encoder.conv1.bias", "encoder.conv1.weight"]
    np.testing.assert_array_equal(state["head.conv2.weight"], datasets["head/conv2/kernel:0"])


def test_two_tensors_of_one_name_are_refused(tmp_path):
    twice = {f"{model}/dense/kernel:0": np.zeros((2, 2), np.float32) for model in ("a", "b")}
    text = refused(keras(tmp_path / "w.h5", twice))
    assert "of the name decoder.dense_1.weight (a/dense/kernel:0, b/dense/kernel:0)" in text


# --- Hostile files


@pytest.fixture
def secret(tmp_path) -> Path:
    """Numbers of somebody else's, in a file of HDF5 and in a plain one."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kernel:0"] = np.arange(4, dtype=np.float32)
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return tmp_path


def virtual(file: h5py.File, name: str, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret / "secret.h5"), "kernel:0", (4,))
    file.create_virtual_dataset(name, layout)


SHOWING = {
    "external link": lambda file, name, secret: file.__setitem__(
        name, h5py.ExternalLink(str(secret / "secret.h5"), "kernel:0")
    ),
    "soft link": lambda file, name, _: file.__setitem__(name, h5py.SoftLink("/nowhere")),
    "external storage": lambda file, name, secret: file.create_dataset(
        name, (4,), np.float32, external=[(str(secret / "secret.bin"), 0, 16)]
    ),
    "virtual dataset": virtual,
}


@pytest.mark.parametrize("how", SHOWING)
@pytest.mark.parametrize("name", ["conv1/conv1/kernel:0", "model_weights"])
def test_a_file_that_shows_another_is_refused(how, name, secret):
    path = keras(secret / "w.h5", {"other/other/kernel:0": np.zeros(2, np.float32)})
    with h5py.File(path, "a") as file:
        if "/" in name:
            file.create_group("conv1/conv1")
        SHOWING[how](file, name, secret)
    text = refused(path)
    assert f"has a link at {name}" in text or f"the numbers of {name} in another file" in text


HOSTILE = {
    "a dataset for a group": lambda file: file.__setitem__("model_weights", np.zeros(2)),
    "an empty dataset": lambda file: file.__setitem__("c/c/kernel:0", h5py.Empty("f4")),
    "a reference": lambda file: file.__setitem__("c/c/kernel:0", file.ref),
    "a text": lambda file: file.__setitem__("c/c/kernel:0", "text"),
    "a name that is no UTF-8": lambda file: h5py.h5g.create(file.id, b"c\xff\xfe"),
    "a name that commands": lambda file: file.create_group("c\x1b[2J"),
    "a group in itself": lambda file: file.__setitem__("c", file["/"]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_keras_never_wrote_is_refused(what, tmp_path):
    path = keras(tmp_path / "w.h5", {"conv1/conv1/kernel:0": np.zeros(2, np.float32)})
    with h5py.File(path, "a") as file:
        HOSTILE[what](file)
    assert refused(path).isprintable()


def test_numbers_of_thousands_of_digits_are_names(tmp_path):
    digits = "9" * 5000
    name = f"dense_{digits}"
    state = read_state(keras(tmp_path / "w.h5", {f"{name}/{name}/kernel:0": np.zeros((2, 2))}))
    assert list(state) == [f"{name}.weight"]
