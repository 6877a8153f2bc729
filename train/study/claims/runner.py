"""`python -m train claims`: trains what is missing, measures it, and writes what was seen."""

import contextlib
import json
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from train.loop.loop import fit
from train.run.folder import SUMMARY, load_run
from train.run.lock import locked
from train.study.claims.catalog import get_claim
from train.study.claims.definition import Arm, Claim
from train.study.claims.figures import draw_quantities
from train.study.claims.verdict import Measured, markdown, text
from train.system.errors import UserError
from train.system.files import write_figure, write_json, write_whole, writing
from train.system.machine import describe_machine


def run(options: Namespace, arguments: Sequence[str]) -> None:
    """Tries a claim, and leaves everything in `options.out`; goes on where it was interrupted.

    Raises:
        UserError: on bad input, or if the folder cannot be written.
    """
    claim = get_claim(options.claim)
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}, but must be more than 0.")
    out: Path = options.out or Path("runs") / "claims" / f"{options.claim}-{options.budget}"
    arms = claim.arms(options.budget)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with _no_empty_folder(out), locked(out):
        _train(arms, options, out)
        measured = [_measure(claim, arm, options, out) for arm in arms]
        command = shlex.join(["python", "-m", "train", *arguments])
        with writing(out):
            names = _write(claim, measured, options, out, command)
    print(text(claim, measured, options.budget))
    print(f"{out}: {', '.join(names)}; runs/ has every network")


@contextlib.contextmanager
def _no_empty_folder(out: Path) -> Iterator[None]:
    """Takes the folder away again where an error came before anything was in it."""
    try:
        yield
    except UserError:
        with contextlib.suppress(OSError):
            out.rmdir()
        raise


def _folder(out: Path, arm: Arm, seed: int) -> Path:
    return out / "runs" / f"{arm.slug}-{seed}"


def _train(arms: Sequence[Arm], options: Namespace, out: Path) -> None:
    """Trains a network for each arm and seed, as `fit` does."""
    wanted = [(arm, seed) for arm in arms for seed in range(options.seeds)]
    start, trained = time.monotonic(), 0
    for number, (arm, seed) in enumerate(wanted, start=1):
        config = arm.config.changed(seed=seed)
        folder = _folder(out, arm, seed)
        if _is_finished(folder, config):
            continue
        left = ""
        if trained:
            seconds = (time.monotonic() - start) / trained * (len(wanted) - number + 1)
            left = f"; about {int(seconds) // 60}:{int(seconds) % 60:02d} left"
        print(f"[{number}/{len(wanted)}] {arm.name}, seed {seed}{left}", file=sys.stderr)
        fit(
            config,
            out=folder,
            data_dir=options.data_dir,
            resume=not options.overwrite,
            overwrite=options.overwrite,
        )
        trained += 1


def _is_finished(folder: Path, config: Any) -> bool:
    """Whether a run of this configuration has come to its end there."""
    return (folder / SUMMARY).exists() and load_run(folder).config == config


def _measure(claim: Claim, arm: Arm, options: Namespace, out: Path) -> Measured:
    folders = [_folder(out, arm, seed) for seed in range(options.seeds)]
    summaries = [
        json.loads(load_run(folder).summary.read_text(encoding="utf-8")) for folder in folders
    ]
    # Run by run: what several quantities have in common is computed once.
    of_runs = [
        {quantity.name: quantity.of(folder, options.data_dir) for quantity in claim.quantities}
        for folder in folders
    ]
    return Measured(
        arm=arm,
        values={
            quantity.name: [of_run[quantity.name] for of_run in of_runs]
            for quantity in claim.quantities
        },
        parameters=summaries[0]["parameters"],
        steps=[summary["steps"] for summary in summaries],
        seconds=sum(summary["wall_seconds"] for summary in summaries),
    )


def _write(
    claim: Claim, measured: Sequence[Measured], options: Namespace, out: Path, command: str
) -> list[str]:
    figures = ["quantities.png"]
    write_figure(out / figures[0], draw_quantities(claim, measured))
    if claim.draw is not None:
        runs = {each.arm.name: _folder(out, each.arm, 0) for each in measured}
        figures += claim.draw(runs, out, options.data_dir)
    write_whole(
        out / "table.md", markdown(claim, measured, options.budget, command, figures).encode()
    )
    write_json(
        out / "results.json",
        {
            "command": command,
            "claim": claim.says,
            "source": claim.source,
            "budget": options.budget,
            **describe_machine(("jax", "flax", "optax")),
            "arms": [each.plain() for each in measured],
        },
    )
    return ["table.md", "results.json", *figures]
