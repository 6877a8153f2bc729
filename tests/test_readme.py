"""What the README shows works as shown."""

import json
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


OWN_NETWORK, OWN_ROUTING, WITH_PARAMETERS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_own_network_runs_and_trains():
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # a reader's; optax needs it
        exec(OWN_NETWORK, names)
    losses = np.array(names["losses"])
    assert losses.shape == (20,)
    assert losses[-1] < losses[0]


def test_the_own_routing_is_trained_as_it_is_told(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    from train.__main__ import main

    assert len(OWN_ROUTING.strip().splitlines()) <= 22
    (tmp_path / "my_routing.py").write_text(OWN_ROUTING, encoding="utf-8")
    for command in re.findall(r"python -m train (.*my_routing.py:Confident.*)", TEXT):
        if command.startswith("compare"):
            continue
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


def test_the_commands_are_commands():
    pytest.importorskip("orbax.checkpoint")
    from train.__main__ import COMMANDS
    from train.options.command import parse

    commands = re.findall(r"python -m train (.+?)(?: {2,}#.*)?$", TEXT, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        parse("train", "", COMMANDS, shlex.split(command))

    from parity.__main__ import COMMANDS as PARITY_COMMANDS

    for command in re.findall(r"python -m parity (.+?)(?: {2,}#.*)?$", TEXT, re.MULTILINE):
        parse("parity", "", PARITY_COMMANDS, shlex.split(command))


def test_the_layout_table_is_a_layout(tmp_path):
    pytest.importorskip("torch")
    from parity.layouts.table import read_layout

    (table,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "mine.toml").write_text(table, encoding="utf-8")
    layout = read_layout(tmp_path / "mine.toml")
    assert layout.name == "mine"
    assert layout.config((28, 28, 1), 10).model.routing_iterations == 4


def test_what_is_linked_is_there():
    targets = re.findall(r"\]\((?!http)([^)]+)\)", TEXT)
    paths = re.findall(r"`((?:capsjax|train|parity|docs)/[\w/.]*)`", TEXT)
    assert targets
    for path in (*targets, *paths, "CONTRIBUTING.md"):
        assert (ROOT / path).exists(), path
