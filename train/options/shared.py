"""Options that several commands have."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from train.options.command import Command, option
from train.system.errors import UserError
from train.system.printing import escaped


@dataclass(kw_only=True)
class DataDir(Command):
    """A command that reads a data set."""

    data_dir: Path | None = option(
        None,
        "folder with the official files of the data set, where there is no network; of tfds: sets, "
        "the one in which tensorflow-datasets has prepared them",
        metavar="DIR",
    )


@dataclass(kw_only=True)
class Arrays(DataDir):
    """A command that reads any data set."""

    image_axes: Literal["NHWC", "NCHW"] | None = option(
        None, "order of the axes of images in an npz: file, where it has to be said"
    )
    labels_from: str | None = option(
        None,
        'how an npz: file numbers its classes: the number of the first, or "values", if each value '
        "that occurs is a class; class_names are then of these in ascending order",
        metavar="FIRST",
    )

    @property
    def layout(self) -> Any:
        """How an npz: file is to be understood, if anything is said of that."""
        from train.data import npz

        found = npz.Layout(self.image_axes, self.labels_from)
        return None if found == npz.AS_WRITTEN else found


def _record_name(text: str) -> str:
    from train.study.records import require_name

    require_name(text)
    return text


@dataclass(kw_only=True)
class Recorded(Command):
    """A command whose result may be published.

    Attributes:
        program: of a class, the program that it is a command of.
    """

    program: ClassVar[str] = "python -m train"

    record: str | None = option(
        None,
        "keep the result in docs/results/NAME, of which `python -m train results` makes the tables "
        "of the docs",
        parse=_record_name,
    )

    def reserve(self, part: str, kind: str, config: Mapping[str, Any] | None = None) -> None:
        """Sees before anything is trained that the result can be kept, as of `require_place`."""
        if self.record is not None:
            from train.study.records import require_place

            require_place(self.record, part, kind, config)

    def keep(self, part: str, values: Mapping[str, Any]) -> None:
        """Keeps a result, if that is wanted, and prints where.

        Raises:
            UserError: if it cannot be written.
        """
        if self.record is not None:
            from train.study.records import keep

            print(keep(self.record, part, self.line, values))

    @property
    def line(self) -> str:
        """The command as it was given, in one line."""
        return escaped(f"{self.program} {shlex.join(self.arguments)}")


@dataclass(kw_only=True)
class Devices(Command):
    """A command that computes on some of the devices."""

    devices: int | None = option(
        None, "devices to use, of each process (default: all)", metavar="N"
    )


@dataclass(kw_only=True)
class Trained(Command):
    """A command that takes what was trained."""

    checkpoint: Literal["last", "best"] = option(
        "last", "the newest one, or the one with the highest validation accuracy"
    )
    routing: str | None = option(
        None,
        "the run's routing, if it is your own: its code is run, and only if you name it",
        metavar="FILE.py:NAME",
    )
    json: bool = option(False, "print JSON, for programs")

    def trust_routing(self, runs: list[Path]) -> None:
        """Loads the routing of the user's own that the command line names, if it names one.

        Where its code is another than when a run was trained, that is told on stderr.

        Raises:
            UserError: none of the runs was trained with it; or it cannot be loaded.
        """
        from train.learn.user_routing import code_fingerprint, trust
        from train.run.folder import ROUTING, load_run

        if self.routing is not None:
            found = {run: load_run(run) for run in runs}
            trained = sorted({run.config.model.routing for run in found.values()})
            if self.routing not in trained:
                raise UserError(
                    f"--routing is {self.routing}, but {' and '.join(map(str, runs))} was trained "
                    f"with {' and '.join(trained)}: leave it out, or name that, if it is your own."
                )
            trust(self.routing)
            code = code_fingerprint(self.routing)
            for folder, run in found.items():
                if run.fingerprints.get(ROUTING, code) != code:
                    print(
                        f"note: the code of {self.routing} has changed since {folder} was trained",
                        file=sys.stderr,
                    )
