"""What the README shows works as shown."""

import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippets_run_and_train():
    own_network, own_routing = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # a reader's; optax needs it
        exec(own_network, names)
    losses = np.array(names["losses"])
    assert losses.shape == (20,)
    assert losses[-1] < losses[0]
    own_routing = own_routing.replace("(28, 28, 1)", "(20, 20, 1)").replace(
        "num_classes=10,",
        "num_classes=3, conv_features=4, primary_types=2, decoder_hidden=(4,),",
    )
    exec(own_routing, names)
    output = names["model"](np.zeros((2, 20, 20, 1), np.float32))
    assert output.lengths.shape == (2, 3)
    np.testing.assert_allclose(output.coupling, 1 / output.coupling.shape[1], rtol=1e-6)


def test_the_commands_are_commands():
    pytest.importorskip("orbax.checkpoint")
    from train.__main__ import _parser

    commands = re.findall(r"python -m train (.+?)(?: {2,}#.*)?$", TEXT, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        _parser().parse_args(shlex.split(command))

    from parity.__main__ import _parser as parity_parser

    for command in re.findall(r"python -m parity (.+?)(?: {2,}#.*)?$", TEXT, re.MULTILINE):
        parity_parser().parse_args(shlex.split(command))


def test_the_layout_table_is_a_layout(tmp_path):
    pytest.importorskip("torch")
    from parity.layouts import read_layout

    (table,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "mine.toml").write_text(table, encoding="utf-8")
    layout = read_layout(tmp_path / "mine.toml")
    assert layout.name == "mine"
    assert layout.config((28, 28, 1), 10).routing_iterations == 4


def test_what_is_linked_is_there():
    targets = re.findall(r"\]\((?!http)([^)]+)\)", TEXT)
    paths = re.findall(r"`((?:capsjax|train|parity|docs)/[\w/.]*)`", TEXT)
    assert targets
    for path in (*targets, *paths, "CONTRIBUTING.md"):
        assert (ROOT / path).exists(), path
