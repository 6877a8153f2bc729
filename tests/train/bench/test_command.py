"""The command end to end, and what it says where it cannot."""

import json
import re

import pytest

from train.__main__ import main

TINY = (
    *("--model-options", "conv_features=4", "conv_kernel=3", "primary_types=2"),
    *("primary_kernel=3", "decoder_hidden=[8]"),
    *("--repetitions", "2", "--seconds", "0.01"),
)


def test_a_benchmark_end_to_end(python_m_train, tmp_path):
    ended = python_m_train(
        *("bench", "--batch-sizes", "4,2000", "--iterations", "1,3", *TINY),
        *("--json", tmp_path / "b.json", "--plot", tmp_path / "figures"),
        devices=2,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    ran = [row for row in found["rows"] if row["failure"] is None]
    assert [(row["batch_size"], row["iterations"]) for row in ran] == [(4, 1), (4, 3)]
    for row in ran:
        assert row["images_per_second"] == pytest.approx(4 / row["step_seconds"])
        assert row["slowest"] <= row["images_per_second"] <= row["fastest"]
        assert row["peak_bytes"] > 10**8
        assert row["primary_capsules"] > 0
        assert len(row["parts"]) == 5
    work = [row["flops_per_image"]["forward"] for row in ran]
    assert work[1] - work[0] == 2 * 4 * ran[0]["primary_capsules"] * 10 * 16
    assert ran[1]["memory"]["total"] > ran[0]["memory"]["total"]
    refused = [row["failure"] for row in found["rows"] if row["failure"]]
    assert refused == [refused[0]] * 2
    assert "a batch of 2000 is larger than the training set" in refused[0]
    assert found["machine"]["devices"] == 2
    assert found["machine"]["ceilings"]["memory_bytes"] > 0
    assert found["data"] == {"name": "digits", "synthetic": False}
    assert [growth["axis"] for growth in found["growth"]] == ["iterations"]
    assert found["growth"][0]["rows"] == [1, 3]

    assert ended.stdout.count("| 4 | float32 |") == 4 * 2
    assert "iterations 1 to 3 (batch 4" in ended.stdout
    assert "1/4: batch 4, float32, 1 iterations" in ended.stderr
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {"parts.png", "iterations.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "unknown preset 'digit', choose from: digits"),
        (["--dtypes", "float8"], "unknown dtype 'float8', choose from: float32"),
        (["--dtypes", "float64"], "float64 needs JAX's x64 mode"),
        (["--json", "nowhere/b.json"], "cannot be written: nowhere is no folder"),
        (["--feed", "--devices", "9"], "--devices is 9, but this machine has 1 to 8"),
        (["--feed", "--batch-size", "20000"], "larger than the training set of 1438"),
        (["--predict-memory", "1kB", *TINY], "more than the 1,000 there are"),
        (
            ["--predict-memory", "1GB", "--model-options", "colour=red"],
            "this network cannot be made: .*colour",
        ),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.strip().splitlines()) == 1
    assert re.search(message, said.err), said.err
