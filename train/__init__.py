"""The training program, `python -m train`: one room for each thing it does.

From the top down, each importing only those below it: `cli` (the commands), `study` (many runs that
answer one question), `bench` and `loop` (what a step costs, and training), `report` (what was
trained, measured and drawn), `run` (the folder of a run), `learn` (a step of training), `presets`
and `config` (what decides a run's numbers), `data`, `distributed` (several processes) and `system`.

`train.load_run` gives what was trained to a program of one's own.
"""

from os import PathLike
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import capsjax


def load_run(
    folder: str | PathLike,
    *,
    checkpoint: Literal["last", "best"] = "last",
    routing: str | None = None,
) -> "capsjax.Network":
    """Loads the network of a run, as `capsjax.load` loads one that was exported.

    Args:
        folder: the run's, such as `"runs/mnist"`.
        checkpoint: the newest one, or the one with the highest validation accuracy.
        routing: `FILE.py:NAME`, where the run has a routing of one's own: the file is run.

    Raises:
        train.system.errors.UserError: the folder holds no run, or no checkpoint that can be read.
    """
    from pathlib import Path

    from train.learn.user_routing import trust
    from train.report.loading import load_model, network_of
    from train.run.folder import load_run as find_run

    run = find_run(Path(folder))
    trust(routing)
    return network_of(run, load_model(run, checkpoint))
