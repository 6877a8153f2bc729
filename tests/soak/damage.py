"""Damages every file of a checkpoint again and again and demands that it is found out.

    .venv/bin/python -m tests.soak.damage --rounds 5

Each time the state is read as it was saved, or that of the checkpoint before. Exits with 1 if it
is not.
"""

import argparse
import contextlib
import gc
import io
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.soak.tiny import tiny
from train.data import load_dataset
from train.learn.trainer import assemble
from train.run.checkpoint_files import Checkpoints
from train.system.progress import Progress

# --- Ways in which the files of a checkpoint come to harm


def delete(path: Path, _chance: random.Random) -> None:
    """Removes a file, or a folder with what is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def truncate(path: Path, chance: random.Random) -> None:
    """Cuts a file short, at any byte."""
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def empty(path: Path, _chance: random.Random) -> None:
    """Leaves nothing in a file."""
    path.write_bytes(b"")


def flip(path: Path, chance: random.Random) -> None:
    """Turns one bit of a file around."""
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def overwrite(path: Path, chance: random.Random) -> None:
    """Writes noise over a file."""
    path.write_bytes(chance.randbytes(path.stat().st_size))


Harm = Callable[[Path, random.Random], None]
TO_FILES: tuple[Harm, ...] = (delete, truncate, empty, flip, overwrite)


def harms(checkpoint: Path) -> list[tuple[Path, Harm]]:
    """Each file of a checkpoint with everything that may happen to it, and folders that go."""
    found: list[tuple[Path, Harm]] = []
    for path in sorted(checkpoint.rglob("*")):
        found += [(path, harm) for harm in (TO_FILES if path.is_file() else (delete,))]
    return found


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="how often (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="chooses what is hit (default: 0)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    program = assemble(tiny(), load_dataset("digits"), devices=1)
    states = {
        step: program.state._replace(step=program.state.step + step, key=jax.random.key(step))
        for step in (1, 2)
    }
    counts = {1: 0, 2: 0}
    with tempfile.TemporaryDirectory() as folder:
        whole, run = Path(folder) / "whole", Path(folder) / "run"
        with Checkpoints(whole) as checkpoints:
            for step, state in states.items():
                checkpoints.save(state, step / 10)
        cases = harms(whole / "2")
        with Progress(options.rounds) as progress:
            for number in range(options.rounds):
                progress.begin(f"round {number + 1}")
                gc.freeze()  # Orbax keeps some of what it read, which made each round longer
                for path, harm in cases:
                    shutil.rmtree(run, ignore_errors=True)
                    shutil.copytree(whole, run / "checkpoints")
                    harm(run / "checkpoints" / path.relative_to(whole), chance)
                    said = io.StringIO()
                    with contextlib.redirect_stderr(said), Checkpoints(run / "checkpoints") as kept:
                        found = kept.load(program.state)
                    step = int(found.step)
                    counts[step] += 1
                    if not same(found, states[step]) or (step == 1) != (
                        "damaged" in said.getvalue()
                    ):
                        print(f"FAILED: {harm.__name__} of {path.relative_to(whole)}: {found}")
                        return 1
                progress.advance()
    print(
        f"{sum(counts.values())} times damaged: {counts[1]} found out and the checkpoint before "
        f"used, {counts[2]} without harm to the state; none read wrong."
    )
    return 0


def same(ours: object, theirs: object) -> bool:
    """Whether two states are equal in every bit."""

    def plain(leaf: jax.Array) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return all(
        np.array_equal(plain(a), plain(b))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
