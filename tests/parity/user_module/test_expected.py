"""`import --check-on`: a run is made only if it computes what PyTorch did."""

from pathlib import Path

import numpy as np
import pytest
import torch

from parity.__main__ import main
from tests.parity import styles
from tests.parity.layouts.dialects import digits, saved
from tests.parity.layouts.test_table import FOLDER
from train.run.folder import load_run

IMAGES = digits(16)[0]


def files(folder: Path, name: str, **changes: np.ndarray) -> list[str]:
    """Arguments that import the weights of a style, and check them on digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(styles, name)()
    with torch.no_grad():
        seen = torch.from_numpy(IMAGES.astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()
        lengths = module(seen.clone(memory_format=torch.contiguous_format)).numpy()
    arrays = {"images": IMAGES, "lengths": lengths} | changes
    np.savez(folder / "check.npz", **{k: v for k, v in arrays.items() if v is not None})
    weights = saved(folder / "weights.pt", module.state_dict())
    return [
        *("import", str(weights), "--check-on", str(folder / "check.npz")),
        *("--out", str(folder / "run")),
    ]


def test_an_import_that_agrees_is_told(tmp_path, capsys):
    assert main(files(tmp_path, "Classes")) == 0
    printed = capsys.readouterr().out
    assert (
        f"checked: on 16 images of {tmp_path / 'check.npz'} lengths (softmax) agree to" in printed
    )


def test_lengths_may_have_unit_axes_as_a_norm_leaves_them(tmp_path, capsys):
    """And of a run that rounds more it is told what was checked."""
    arguments = files(tmp_path, "Classes")
    with np.load(tmp_path / "check.npz") as arrays:
        lengths = arrays["lengths"][..., np.newaxis]
    np.savez(tmp_path / "check.npz", images=IMAGES, lengths=lengths)
    assert main([*arguments, "--dtype", "bfloat16"]) == 0
    assert "in float32: the run, in bfloat16, rounds more" in capsys.readouterr().out


@pytest.mark.parametrize(
    "images",
    [
        {"images": IMAGES / 255},
        {"images": IMAGES[..., 0]},
        {"images": IMAGES.transpose(0, 3, 1, 2)},
        {"images": None, "inputs": (IMAGES / 255).astype(np.float32)},
    ],
)
def test_images_are_pixels_in_any_order_of_axes(images, tmp_path):
    assert main(files(tmp_path, "Classes", **images)) == 0


def test_another_activation_is_refused_and_named(tmp_path, capsys):
    """No tensor tells it: without a check the import would be wrong without a word."""
    arguments = files(tmp_path, "Leaky")
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert "a rectifier with the slope 0.3 below zero: import it with --model-options" in printed
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--model-options", "conv_slope=0.3"]) == 0
    assert load_run(tmp_path / "run").config.model.options["conv_slope"] == 0.3


def test_options_that_are_named_make_them_agree(tmp_path, capsys):
    published = (FOLDER / "gram_ai.toml").read_text()
    mine = published.replace('lengths_are = "softmax"', "").replace("routing_iterations = 3", "")
    (tmp_path / "mine.toml").write_text(mine)
    arguments = [*files(tmp_path, "Faint"), "--layout", str(tmp_path / "mine.toml")]
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    _, flags = printed.split(": import it with ")
    words = flags.removesuffix(". Nothing is written.\n").split()
    assert main([*arguments, *words]) == 0


def test_an_import_tells_what_it_cannot_see(tmp_path, capsys):
    arguments = files(tmp_path, "Classes")
    assert main([arg for arg in arguments if "check" not in arg]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "do not tell" in line]
    for assumed in (
        "primary_stride 2 (--model-options)",
        "a plain rectifier (--model-options conv_slope=, instance_norm=)",
        "3 routing iterations (--routing-iterations)",
        "images from 0 to 1 (--input-mean, --input-std)",
        "the margin loss of a softmax (--loss, --margin-of)",
        "--check-on",
    ):
        assert assumed in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": None}, "has the arrays images, but must have images (or inputs"),
        ({"lengths": np.zeros((3, 10), "f4")}, "has lengths as float32 [3, 10], but must have"),
        ({"images": IMAGES[:, :7]}, "has images [16, 7, 8, 1], but the network is for 8x8x1"),
        ({"images": IMAGES - 0.5}, "images that are no pixels"),
        ({"images": np.array(["a"])}, "has images as <U1 [1]"),
        ({"images": np.float32(0.5)}, "has images as float32 []"),
        ({"lengths": np.full((16, 10), np.nan, "f4")}, "has lengths that are not finite"),
        ({"images": np.full((16, 8, 8, 1), np.nan)}, "has images that are not finite"),
        ({"lengths": np.zeros((16, 10, 3), "f4")}, "has lengths as float32 [16, 10, 3], but must"),
    ],
)
def test_other_files_are_refused(changes, message, tmp_path, capsys):
    assert main(files(tmp_path, "Classes", **changes)) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()
