"""Files of weights: three kinds, wrappings, narrow dtypes, and files that are none."""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from parity.__main__ import main
from parity.layouts.state_files import read_state, write_state
from tests.parity.layouts.dialects import STRIDE, build, saved, state_of
from train.system.errors import UserError


def same(state: dict, expected: dict) -> None:
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(np.asarray(state[name]), tensor.numpy())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "best": 0.99},
        lambda s: {"model": s, "optimizer": torch.optim.Adam([torch.zeros(1)]).state_dict()},
        lambda s: {"model": {"state_dict": s}, "args": {"lr": 0.1}},
        lambda s: {"capsnet": s, "step": torch.tensor(3)},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module._orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {"checkpoint": {"state_dict": s, "epoch": 3}, "best": 0.99},
        lambda s: {"runs": [{"net": {"weights": {"state_dict": s}}}], "epoch": 3},
        lambda s: {
            "outer": {"inner": s},
            "optimizer": torch.optim.Adam([torch.zeros(1)]).state_dict(),
        },
    ],
)
def test_wrappings_are_taken_off(wrap, tmp_path):
    state = state_of(build("xifengguo"))
    same(read_state(saved(tmp_path / "weights.pth", wrap(state))), state)


@pytest.mark.parametrize("name", ["w.pkl", "w.pth.tar", "w.ckpt", "w.bin", "w", "w.safetensors"])
def test_what_a_file_holds_decides_and_not_its_suffix(name, tmp_path):
    state = state_of(build("xifengguo"))
    same(read_state(saved(tmp_path / name, state)), state)
    old = {"_use_new_zipfile_serialization": False}
    torch.save(state, tmp_path / name, **old)
    same(read_state(tmp_path / name), state)
    save_file(state, tmp_path / name)
    same(read_state(tmp_path / name), state)


@pytest.mark.parametrize("wrapper", ["model", "net.inner"])
def test_a_checkpoint_of_lightning_is_imported(wrapper, tmp_path, capsys):
    state = state_of(build("gram-ai"))
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"{wrapper}.{name}": tensor for name, tensor in state.items()},
        "optimizer_states": [torch.optim.Adam([torch.zeros(1)]).state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.001},
    }
    path, out = saved(tmp_path / "last.ckpt", content), tmp_path / "run"
    assert main(["import", str(path), "--out", str(out), *STRIDE]) == 0
    assert "as the layout gram-ai" in capsys.readouterr().out
    assert main(["export", str(out), "--layout", "gram-ai", "--out", str(tmp_path / "o.pt")]) == 0
    same(read_state(tmp_path / "o.pt"), state)


def test_what_keeps_a_wrapped_network_from_fitting_is_told_of_the_network(tmp_path, capsys):
    state = {f"model.{name}": tensor for name, tensor in state_of(build("gram-ai")).items()}
    state["model.more"] = torch.zeros(1)
    path = saved(tmp_path / "last.ckpt", {"state_dict": state})
    assert main(["import", str(path), "--out", str(tmp_path / "run"), *STRIDE]) == 2
    assert "the nearest is gram-ai, from which it differs:\n  not in the layout: more" in (
        capsys.readouterr().err
    )


def test_names_command_no_terminal_and_are_not_endless(tmp_path, capsys):
    state = {
        **state_of(build("gram-ai")),
        "\x1b[2Jmore": torch.zeros(1),
        "9" * 5000: torch.zeros(1),
    }
    path = saved(tmp_path / "w.pt", state)
    assert main(["import", str(path), "--out", str(tmp_path / "run"), *STRIDE]) == 2
    printed = capsys.readouterr().err
    assert "not in the layout: \\x1b[2Jmore, 999" in printed
    assert len(printed) < 1000


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_written_as_it_is_read(dtype, suffix, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in state_of(build("xifengguo")).items()}
    write_state(tmp_path / f"a{suffix}", read_state(saved(tmp_path / "weights.pt", state)))
    again = read_state(tmp_path / f"a{suffix}")
    for name, tensor in state.items():
        assert str(again[name].dtype) == str(dtype).removeprefix("torch.")
        np.testing.assert_array_equal(again[name].astype(np.float64), tensor.double().numpy())


def test_other_dtypes_are_converted_and_reported(tmp_path, capsys):
    state = state_of(build("gram-ai"))
    for name, dtype in (
        ("conv1.weight", torch.float64),
        ("conv1.bias", torch.float64),
        # Of one parameter of capsjax:
        ("primary_capsules.capsules.0.weight", torch.float16),
        ("primary_capsules.capsules.1.weight", torch.bfloat16),
    ):
        state[name] = state[name].to(dtype)
    path, out = saved(tmp_path / "weights.pt", state), tmp_path / "run"
    assert main(["import", str(path), "--out", str(out), *STRIDE]) == 0
    printed = capsys.readouterr().out
    assert (
        "note: tensors converted to float32: 2 of float64, 1 of float16, 1 of bfloat16" in printed
    )
    assert main(["export", str(out), "--layout", "gram-ai", "--out", str(tmp_path / "o.pt")]) == 0
    exported = torch.load(tmp_path / "o.pt", weights_only=True)
    for name, tensor in state.items():
        assert torch.equal(exported[name], tensor.float())


def refused(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read_state(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_pickled_model_is_refused_with_the_way_out(tmp_path):
    model = build("xifengguo")
    for content in (
        model,
        {"model": model, "epoch": 3},
        {"state_dict": model.state_dict(), "args": argparse.Namespace(lr=1)},
    ):
        text = refused(saved(tmp_path / "model.pt", content))
        assert "holds a pickled model or other objects than tensors (" in text
        assert "torch.save(model.state_dict(), 'weights.pt'), and import that" in text
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(model))
    assert "holds a pickled model" in refused(tmp_path / "plain.pt")


def test_files_that_are_none(tmp_path):
    whole = saved(tmp_path / "whole.pt", state_of(build("gram-ai"))).read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"hello")):
        (tmp_path / f"{name}.pt").write_bytes(content)
        assert "is damaged or no PyTorch file" in refused(tmp_path / f"{name}.pt")
    for suffix, kind in ((".safetensors", "safetensors"), (".h5", "HDF5")):
        (tmp_path / f"cut{suffix}").write_bytes(b"nonsense" * 10)
        assert f"is damaged or no {kind} file" in refused(tmp_path / f"cut{suffix}")
    assert "there is no file" in refused(tmp_path / "none.pt")
    np.savez(tmp_path / "w.npz", x=np.zeros(3))
    assert "is damaged or no PyTorch file" in refused(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list and no state dict"),
        ({"epoch": 3, "loss": 0.1}, "no state dict (there is: epoch, loss)"),
        (
            {"generator": {"a": torch.zeros(1)}, "ema": {"a": torch.zeros(1)}},
            "more than one state dict (there is: generator, ema)",
        ),
        ({"a": torch.zeros(2, 2).to_sparse()}, "has a as torch.float32 (torch.sparse_coo)"),
    ],
)
def test_contents_that_are_no_state_dict(content, message, tmp_path):
    assert message in refused(saved(tmp_path / "weights.pt", content))
