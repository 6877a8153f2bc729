"""The program `python -m parity`."""

import sys
from collections.abc import Sequence

from parity.cli.bench import Bench
from parity.cli.check import Check
from parity.cli.export import Export
from parity.cli.gpu_report import GpuReport
from parity.cli.import_weights import Import
from train.options.command import run_program
from train.system.huge_pages import restart_with_huge_pages
from train.system.quirks import end_program

PROGRAM = "python -m parity"
DESCRIPTION = "Proves that capsjax computes what PyTorch capsule networks compute."
COMMANDS = (Check, Import, Export, Bench, GpuReport)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 where parity fails, or 2 for bad input."""
    words = sys.argv[1:] if arguments is None else arguments
    return run_program(PROGRAM, DESCRIPTION, COMMANDS, words)


if __name__ == "__main__":
    restart_with_huge_pages()
    end_program(main())
