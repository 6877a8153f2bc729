"""The program `python -m train`."""

import sys
from collections.abc import Sequence

from train.cli.bench import Bench
from train.cli.claims import Claims
from train.cli.compare import Compare
from train.cli.evaluate import Evaluate
from train.cli.export import Export
from train.cli.fit import Fit
from train.cli.launch import Launch
from train.cli.predict import Predict
from train.cli.presets import Presets
from train.cli.results import Results
from train.cli.show import Show
from train.options.command import run_program
from train.system.huge_pages import restart_with_huge_pages
from train.system.quirks import end_program

PROGRAM = "python -m train"
DESCRIPTION = "Trains capsule networks, and measures and uses what was trained."
COMMANDS = (
    *(Fit, Launch, Evaluate, Predict, Export, Bench, Compare, Claims, Show, Presets, Results),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code, see `run_program`."""
    words = sys.argv[1:] if arguments is None else arguments
    return run_program(PROGRAM, DESCRIPTION, COMMANDS, words)


if __name__ == "__main__":
    restart_with_huge_pages()
    end_program(main())
