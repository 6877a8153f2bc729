"""What the tests of the command line share."""

from pathlib import Path

from train.__main__ import main

TINY = (
    "--model-options",
    "conv_features=8",
    "primary_types=2",
    "decoder_hidden=[8]",
    "--batch-size",
    "16",
)


def fails(capsys, *arguments: str | Path) -> str:
    """Runs a command that has to end with 2 and one sentence; returns the sentence."""
    assert main(list(map(str, arguments))) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    return lines[0]
