"""`results`: makes the tables of the docs."""

from dataclasses import dataclass

from train.options.command import Command, option
from train.system.errors import UserError


@dataclass(kw_only=True)
class Results(Command):
    """Make the tables of README and docs from the recorded results.

    Makes each table of README.md and docs/ anew from the files in docs/results/ that `--record` of
    another command has written.
    """

    check: bool = option(False, "change nothing; fail where a table differs from its file")

    def run(self) -> int:
        """Renders the tables, and prints which pages were changed."""
        from train.study.records import outdated, render_all

        if not self.check:
            for page in render_all():
                print(page)
        elif differing := outdated():
            raise UserError(
                f"{', '.join(map(str, differing))} differ from docs/results/: run `python -m train "
                "results`."
            )
        return 0
