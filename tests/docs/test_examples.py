"""What the guides show works as shown."""

import json
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: str, language: str) -> list[str]:
    text = (GUIDES / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


OWN_ROUTING, WITH_PARAMETERS = examples("routing.md", "python")


@pytest.mark.parametrize(
    "page", [p.name for p in GUIDES.glob("*.md") if examples(p.name, "python")]
)
def test_the_examples_run(page):
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # a reader's; optax needs it
        for example in examples(page, "python"):
            exec(example, names)
    if page == "library.md":
        losses = np.array(names["losses"])
        assert losses.shape == (20,)
        assert losses[-1] < losses[0]


def test_the_own_routing_is_trained_as_it_is_told(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    from train.__main__ import main

    assert len(OWN_ROUTING.strip().splitlines()) <= 22
    (tmp_path / "my_routing.py").write_text(OWN_ROUTING, encoding="utf-8")
    text = (GUIDES / "routing.md").read_text(encoding="utf-8")
    commands = re.findall(r"python -m train (.*my_routing.py:Confident.*)", text)
    assert [command.split()[0] for command in commands] == ["fit", "evaluate"]
    for command in commands:
        words = shlex.split(command.replace("../my_routing.py", str(tmp_path / "my_routing.py")))
        words = [str(tmp_path / "run") if word == "runs/mine" else word for word in words]
        short = ["--steps", "40", "--devices", "1"] if words[0] == "fit" else []
        with jax.numpy_dtype_promotion("standard"):
            assert main([*words, *short]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test.accuracy"] > 0.5


def test_the_own_routing_with_parameters_is_trained(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    from train.__main__ import main

    file, out = tmp_path / "my_routing.py", tmp_path / "run"
    file.write_text(OWN_ROUTING + WITH_PARAMETERS, encoding="utf-8")
    options = ["--steps", "40", "--devices", "1", "--out", str(out)]
    with jax.numpy_dtype_promotion("standard"):
        assert main(["fit", "digits", "--routing", f"{file}:Weighted", *options]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["test.accuracy"] > 0.5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_are_commands(page):
    pytest.importorskip("orbax.checkpoint")
    from parity.__main__ import COMMANDS as PARITY_COMMANDS
    from train.__main__ import COMMANDS
    from train.options.command import parse

    text = page.read_text(encoding="utf-8")
    for program, commands in (("train", COMMANDS), ("parity", PARITY_COMMANDS)):
        for line in re.findall(rf"^[^`\n]*python -m {program} ([^`\n]+)$", text, re.MULTILINE):
            parse(program, "", commands, shlex.split(line.split("  #")[0]))


def test_the_layout_table_is_a_layout(tmp_path):
    pytest.importorskip("torch")
    from parity.layouts.table import read_layout

    (table,) = examples("pytorch.md", "toml")
    (tmp_path / "mine.toml").write_text(table, encoding="utf-8")
    layout = read_layout(tmp_path / "mine.toml")
    assert layout.name == "mine"
    assert layout.config((28, 28, 1), 10).model.routing_iterations == 4
