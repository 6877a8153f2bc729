"""`launch`: trains in several processes on this machine."""

from dataclasses import dataclass
from typing import cast

from train.cli.fit import Fit
from train.options.command import Command, argument, option, parse
from train.options.values import positive
from train.system.errors import UserError


@dataclass(kw_only=True)
class Launch(Command):
    """Train in several processes on this machine.

    Starts a `fit` in several processes on this machine, which train one network; stops them all
    when it is stopped, and when one of them fails.
    """

    processes: int = option(..., "how many processes", metavar="N", parse=positive)
    devices_per_process: int | None = option(
        None,
        "GPUs of each process, the first to the first, and so on; virtual devices on a CPU "
        "(default: each process sees all GPUs, which only one can use)",
        metavar="N",
        parse=positive,
    )
    command: list[str] = argument(
        "the command, as it would be for one process", metavar="-- fit ...", rest=True
    )

    def run(self) -> int:
        """Runs the command in all processes; the exit code of the first that failed, or 0."""
        from train.distributed.launcher import launch
        from train.run.folder import require_free

        command = self.command[1:] if self.command[:1] == ["--"] else self.command
        if command[:1] != ["fit"]:
            raise UserError("launch starts a fit: end with `-- fit PRESET ...`.")
        # What is wrong is said once, before all start.
        fit = cast(Fit, parse("python -m train", "", [Fit], command))
        if fit.folder is not None:
            require_free(fit.folder, resume=fit.resume, overwrite=fit.overwrite)
        return launch(self.processes, command, self.devices_per_process)
