"""`check --against`: a module in a style of its own beside capsjax, and what makes them differ."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from parity.__main__ import main
from parity.user_module import diagnosis
from parity.user_module.checking import Outcome, compare_module, text
from tests.parity import theirs
from tests.parity.layouts.dialects import SIZES, build
from train.system.errors import UserError

SHAPE = ("--image-shape", "8x6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a user has: the module, its weights, and a layout of their names."""
    folder = tmp_path_factory.mktemp("theirs")
    shutil.copy(theirs.__file__, folder / "net.py")
    (folder / "names.toml").write_text(theirs.LAYOUT)
    generator = torch.Generator().manual_seed(1)
    deviations = {"stem_w": 0.4, "caps_w": 0.3, "routes": 0.7, "stem_b": 0.1, "caps_b": 0.1}
    state = {
        name: deviations[name] * torch.randn(tensor.shape, generator=generator)
        for name, tensor in theirs.Caps().state_dict().items()
    }
    torch.save(state, folder / "weights.pt")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _each_dialect_is_computed_once() -> Iterator[None]:
    """Nearly all tests have the same weights and images, and so the same numbers of a dialect."""
    known: dict[bytes, diagnosis.Variants] = {}
    variants = diagnosis.Variants

    def kept(model, images, output_is):
        arrays = [*jax.tree.leaves(nnx.state(model)), images]
        key = b"".join(np.asarray(array).tobytes() for array in arrays)
        return known.setdefault(key + output_is.encode(), variants(model, images, output_is))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "Variants", kept)
        yield


def compare(folder: Path, name: str, **options) -> Outcome:
    return compare_module(
        f"{folder / 'net.py'}:{name}",
        folder / "weights.pt",
        layout=str(folder / "names.toml"),
        image_size=(8, 6),
        **options,
    )


def ways(outcome: Outcome) -> list[list[str]]:
    """The names of the switches of everything that agrees."""
    assert outcome.diagnosis is not None
    return [[switch.name for switch in found.switches] for found in outcome.diagnosis.agreeing]


def command(folder: Path, name: str, *arguments: object) -> int:
    return main(
        [
            "check",
            f"--against={folder / 'net.py'}:{name}",
            f"--weights={folder / 'weights.pt'}",
            f"--layout={folder / 'names.toml'}",
            *map(str, arguments),
        ]
    )


# --- The same numbers


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("Caps", {}, "poses"),
        ("Caps", {"x64": True}, "poses"),
        ("ChannelsLast", {}, "poses"),
        ("ChannelsLast", {"output": "capsules.pose", "input_layout": "nhwc"}, "poses"),
        ("Lengths", {}, "lengths"),
        ("WithLabels", {"output": "0"}, "lengths"),
    ],
)
def test_a_module_in_another_style_agrees(folder, name, options, what):
    outcome = compare(folder, name, **options)
    assert outcome.passed, text(outcome)
    assert outcome.diagnosis is None
    dtypes = ["float64"] if options.get("x64") else ["float32", "float64"]
    assert [row.stage.name for row in outcome.comparisons] == [
        f"{compared} in {dtype}"
        for dtype in dtypes
        for compared in (what, "gradient of the images")
    ]
    shape = (7, 5, 6)[: 3 if what == "poses" else 2]
    assert [row.error.shape for row in outcome.comparisons[-2:]] == [shape, (7, 8, 6, 2)]
    assert all(0 < row.limit <= 2e-5 for row in outcome.comparisons)
    assert "PASS: the module and capsjax agree" in text(outcome)


def test_a_bias_of_class_capsules_is_part_of_a_layout(folder, tmp_path):
    weights = torch.load(folder / "weights.pt", weights_only=True)
    torch.save({**theirs.Biased().state_dict(), **weights}, tmp_path / "weights.pt")
    (tmp_path / "names.toml").write_text(theirs.BIASED)
    shutil.copy(folder / "net.py", tmp_path)
    outcome = compare(tmp_path, "Biased")
    assert outcome.passed, text(outcome)
    assert ways(compare(tmp_path, "BiasedOverInputs")) == [["softmax over the input capsules"]]


def test_strides_that_the_layout_does_not_have_are_told(folder, tmp_path):
    """They decide what `import` makes of the same file."""
    assert not compare(folder, "Lengths").notes
    for file in ("net.py", "weights.pt"):
        shutil.copy(folder / file, tmp_path)
    layout = theirs.LAYOUT + "[options]\nmodel_options = { primary_stride = 1 }\n"
    (tmp_path / "names.toml").write_text(layout)
    outcome = compare(tmp_path, "Lengths")
    assert outcome.passed
    (note,) = outcome.notes
    assert note.startswith("computed with primary_stride=2, as in the module and not in the layout")
    assert note.endswith("import it with --model-options primary_stride=2")


def test_a_module_without_gradient_is_compared_forwards(folder):
    outcome = compare(folder, "NoGradient")
    assert outcome.passed
    assert [row.stage.name for row in outcome.comparisons] == [
        "poses in float32",
        "poses in float64",
    ]
    assert "not compared" in outcome.notes[0]


@pytest.mark.parametrize("name", ["gram-ai", "jindongwang", "adambielski"])
def test_the_references_of_dialects_agree(name, tmp_path):
    """Found by their names (auto), with the stride and the size of images that they have."""
    torch.save(build(name).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "net.py").write_text(
        f"from tests.parity.layouts.dialects import build\ndef net():\n    return build({name!r})\n"
    )
    spec = f"{tmp_path / 'net.py'}:net"
    outcome = compare_module(spec, tmp_path / "weights.pt", output="lengths", output_is="lengths")
    assert outcome.passed, text(outcome)
    assert outcome.name == name
    assert outcome.image_shape == SIZES["image_shape"]


@pytest.mark.parametrize("name", ["efficient-capsnet", "yl-1993"])
def test_modules_of_other_networks_agree(name, tmp_path):
    """Their statistics of batches are weights, and so are strides that are seen in a call."""
    torch.save(build(name).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "net.py").write_text(
        "from tests.parity.layouts.dialects import build\n"
        f"def net():\n    return build({name!r})\n"
        f"def other():\n    net = build({name!r})\n    for part in net.modules():\n"
        "        part.eps = 1e-2\n    return net\n"
    )
    spec = f"{tmp_path / 'net.py'}"
    options = {"output": "lengths", "image_size": (8, 8)}
    outcome = compare_module(f"{spec}:net", tmp_path / "weights.pt", **options)
    assert outcome.passed, text(outcome)
    outcome = compare_module(f"{spec}:other", tmp_path / "weights.pt", **options)
    assert "searched for in CapsNet with dynamic routing alone.\nFAIL:" in text(outcome)


# --- A diagnosis


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Detached", ["logits detached from the gradient"]),
        ("OverInputs", ["softmax over the input capsules"]),
        ("ElementByElement", ["class capsules squashed element by element"]),
        (
            "Normalising",
            ["images normalised inside the module (mean 0.1307, deviation 0.3081)"],
        ),
        ("SoftmaxOfLengths", ["a softmax over the lengths"]),
        ("TypeMajor", ["primary capsules numbered type by type"]),
        ("Flat", ["primary capsules cut from the flattened feature maps"]),
        (
            "Regrouped",
            [
                "primary capsules numbered position by position (their channels in the order "
                "component, type)"
            ],
        ),
        ("WithEpsilon", ["1e-05 added to the length that the squash divides by"]),
        (
            "NormalisingWithEpsilon",
            [
                "images normalised inside the module (mean 0.1307, deviation 0.3081)",
                "lengths with 1e-07 added to the square under the root",
            ],
        ),
        (
            "WithTwoEpsilons",
            [
                "1e-05 added to the length that the squash divides by",
                "lengths with 1e-06 added to the square under the root",
            ],
        ),
        ("Leaky", ["a rectifier with the slope 0.3 below zero"]),
        ("OneByOne", ["maps normalised one by one before the rectifier"]),
        ("ByColumn", ["positions numbered column by column"]),
        ("Swapped", ["y and x swapped in the kernels of the first convolution"]),
        (
            "FourAtOnce",
            [
                "softmax over the input capsules",
                "2 routing iterations",
                "primary capsules numbered type by type",
                "a rectifier with the slope 0.2 below zero",
            ],
        ),
        ("OverInputsTwice", ["softmax over the input capsules", "2 routing iterations"]),
        (
            "NormalisingFlat",
            [
                "primary capsules cut from the flattened feature maps",
                "images normalised inside the module (mean 0.1307, deviation 0.3081)",
            ],
        ),
        (
            "OverInputsTwiceDetached",
            [
                "softmax over the input capsules",
                "2 routing iterations",
                "logits detached from the gradient",
            ],
        ),
    ],
)
def test_a_diagnosis_names_what_differs(folder, name, expected):
    outcome = compare(folder, name)
    assert not outcome.passed
    assert [sorted(way) for way in ways(outcome)] == [sorted(expected)]
    found = outcome.diagnosis.agreeing[0]
    assert found.forward < 1e-12
    assert found.gradient < 1e-12


def test_a_difference_without_a_name_is_told_with_what_is_closest(folder, capsys):
    assert command(folder, "Unknown", *SHAPE) == 1
    printed = capsys.readouterr().out
    assert "combinations of switches makes them agree; the layout as it is is " in printed
    assert "FAIL" in printed


def test_a_gradient_that_nothing_explains_is_told(folder):
    outcome = compare(folder, "HalfDetached")
    assert [row.held for row in outcome.comparisons] == [True, False] * 2
    sentence = outcome.diagnosis.sentence
    assert sentence.startswith("the outputs agree to ")
    assert "makes the gradients agree" in sentence


def test_the_command_prints_and_writes_what_it_finds(folder, tmp_path, capsys):
    assert command(folder, "Caps", *SHAPE) == 0
    assert "PASS" in capsys.readouterr().out
    file = tmp_path / "result.json"
    assert command(folder, "OverInputs", *SHAPE, "--json", file) == 1
    printed, shown = capsys.readouterr()
    assert "the module and capsjax compute in float64\ncombination of choices 1/" in shown
    assert "DIFFERS" in printed
    assert "diagnosis: agrees to " in printed
    assert (
        "with softmax over the input capsules: import it with --routing-options softmax_over=in."
        in printed
    )
    result = json.loads(file.read_text())
    assert result["passed"] is False
    assert result["diagnosis"]["agreeing"][0]["switches"] == ["softmax over the input capsules"]


@pytest.mark.parametrize("name", ["NotFinite", "Coarse"])
def test_what_is_wrong_in_float32_alone_is_not_rounding(folder, name):
    outcome = compare(folder, name)
    assert not outcome.passed, text(outcome)
    assert {c.stage.name for c in outcome.comparisons if not c.held} >= {"lengths in float32"}


# --- Bad input


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Missing", SHAPE, "has no Missing; there is Caps"),
        ("SomethingElse", SHAPE, "makes a SomethingElse, but must make a torch.nn.Module"),
        ("LAYOUT", SHAPE, "is a str, but must be a class or a function"),
        ("Needy", SHAPE, "cannot be made without arguments (TypeError"),
        ("Wider", SHAPE, "size mismatch for stem_b"),
        ("Grumpy", SHAPE, "RuntimeError: not today"),
        ("Grumpy", SHAPE, "; 5 other ways failed, too): --input"),
        ("NoCapsules", SHAPE, "lengths [7, 5] or poses [7, 5, 6]; there is 0 [], 1.0 [7, 96]"),
        ("WithLabels", SHAPE, "choose with --output one of 0 [7, 5], 1 [7, 5]"),
        ("WithLabels", (*SHAPE, "--output=2"), "no output '2'; there is 0 [7, 5], 1 [7, 5]"),
        ("ChannelsLast", (*SHAPE, "--output=mean"), "the output 'mean' has not the shape"),
        ("Caps", ("--image-shape=8",), "'8' is not of the form HxW"),
        ("Caps", ("--image-shape=9x9",), "cannot be called (NCHW images [7, 2, 9, 9]"),
        ("Caps", (*SHAPE, "--weights=no.pt"), "there is no file no.pt"),
        ("Caps", (*SHAPE, "--layout=gram-ai"), "does not fit the layout gram-ai"),
        ("Caps", (*SHAPE, "--against=Caps"), "must be FILE.py:CLASS"),
        ("Caps", (*SHAPE, "--against=no.py:Caps"), "there is no file no.py"),
        ("Caps", (*SHAPE, "--report=there"), "--report is not made with --against"),
        (
            "Halved",
            SHAPE,
            "the output is torch.float16, though images and weights are torch.float32",
        ),
        ("Quitter", SHAPE, "cannot be called (NCHW images [7, 2, 8, 6]: SystemExit"),
        ("QuitsAtOnce", SHAPE, "cannot be made without arguments (SystemExit"),
        ("Lengths", (*SHAPE, "--routing=em"), "--routing and --against both say what to compare"),
        ("Lengths", (*SHAPE, "--verbose"), "--verbose is of a single PyTorch implementation"),
        ("Caps", (*SHAPE, "--output-is=squared"), "--output-is squared is of lengths, but the o"),
    ],
)
def test_bad_input_is_one_sentence(folder, capsys, name, arguments, message):
    assert command(folder, name, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert message in printed


def test_options_of_a_module_need_one(capsys):
    assert main(["check", "--output=0"]) == 2
    assert "name that with --against" in capsys.readouterr().err
    assert main(["check", "--against=net.py:Caps"]) == 2
    assert "give --weights FILE" in capsys.readouterr().err


def test_a_file_that_fails_is_one_sentence(folder, tmp_path):
    (tmp_path / "net.py").write_text("import no_such_package_at_all")
    with pytest.raises(UserError, match="cannot be run .ModuleNotFoundError"):
        compare_module(
            f"{tmp_path / 'net.py'}:Caps",
            folder / "weights.pt",
            layout=str(folder / "names.toml"),
        )
