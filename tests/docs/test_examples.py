"""What the guides show works as shown."""

import json
import re
import shlex

import jax
import numpy as np
import pytest

from tests.docs.pages import PAGES, ROOT, cells, name, text

GUIDES = ROOT / "docs" / "guides"
OWN_ROUTING = ROOT / "docs" / "notebooks" / "own_routing.ipynb"


def examples(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(GUIDES / page), re.DOTALL)


CONFIDENT = cells(OWN_ROUTING, "code")[0]
(WEIGHTED,) = (code for code in cells(OWN_ROUTING, "code") if "class Weighted:" in code)


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


def test_the_own_routing_is_trained_as_it_is_told(tmp_path, monkeypatch):
    pytest.importorskip("orbax.checkpoint")
    monkeypatch.setattr("train.report.figures.draw_run", lambda *_: None)
    from train.__main__ import main

    assert len(CONFIDENT.splitlines()) <= 22
    (tmp_path / "my_routing.py").write_text(CONFIDENT, encoding="utf-8")
    commands = re.findall(r"python -m train (.*my_routing.py:Confident.*)", text(OWN_ROUTING))
    assert [command.split()[0] for command in commands] == ["fit", "evaluate", "compare"]
    for command in commands[:2]:
        words = shlex.split(command.replace("../my_routing.py", str(tmp_path / "my_routing.py")))
        words = [str(tmp_path / "run") if word == "runs/mine" else word for word in words]
        short = ["--steps", "40", "--devices", "1"] if words[0] == "fit" else []
        with jax.numpy_dtype_promotion("standard"):
            assert main([*words, *short]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test.accuracy"] > 0.5


def test_the_own_routing_with_parameters_is_trained(tmp_path, monkeypatch):
    pytest.importorskip("orbax.checkpoint")
    monkeypatch.setattr("train.report.figures.draw_run", lambda *_: None)
    from train.__main__ import main

    file, out = tmp_path / "my_routing.py", tmp_path / "run"
    file.write_text(f"{CONFIDENT}\nfrom flax import nnx\n\n{WEIGHTED}", encoding="utf-8")
    options = ["--steps", "40", "--devices", "1", "--out", str(out)]
    with jax.numpy_dtype_promotion("standard"):
        assert main(["fit", "digits", "--routing", f"{file}:Weighted", *options]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["test.accuracy"] > 0.5


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_commands_are_commands(page):
    pytest.importorskip("orbax.checkpoint")
    from parity.__main__ import COMMANDS as PARITY_COMMANDS
    from train.__main__ import COMMANDS
    from train.options.command import parse

    for program, commands in (("train", COMMANDS), ("parity", PARITY_COMMANDS)):
        for line in re.findall(
            rf"^[^`\n]*python -m {program} ([^`\n]+)$", text(page), re.MULTILINE
        ):
            parse(program, "", commands, shlex.split(line.split("  #")[0]))


def test_the_layout_table_is_a_layout(tmp_path):
    pytest.importorskip("torch")
    from parity.layouts.table import read_layout

    (table,) = examples("pytorch.md", "toml")
    (tmp_path / "mine.toml").write_text(table, encoding="utf-8")
    layout = read_layout(tmp_path / "mine.toml")
    assert layout.name == "mine"
    assert layout.config((28, 28, 1), 10).model.routing_iterations == 4
