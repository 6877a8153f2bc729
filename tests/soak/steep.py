"""Every routing trained at ten times its learning rate with five iterations: nothing becomes NaN.

`python -m tests.soak.steep [--steps 1000] [--routings NAME ...]`. They may learn badly; parameters
have to stay finite, and no update may be skipped because a loss or a gradient was not.
"""

import argparse
import sys
import time

import jax
import numpy as np

import capsjax
from train.data import load_dataset
from train.presets import get_preset
from train.study.compare.seeds import SeedsTrainer
from train.system.caches import keep_compiled_programs

ITERATIONS = 5
TOO_HIGH = 10


def steep(routing: str, steps: int) -> tuple[bool, int, float]:
    """Trains the network of the digits' recipe.

    Returns:
        Whether all parameters are finite, how many updates were skipped, and the largest parameter.
    """
    recipe = get_preset("digits")
    config = recipe.changed(
        routing=routing,
        routing_iterations=ITERATIONS,
        learning_rate=TOO_HIGH * recipe.schedule.learning_rate,
        schedule="constant",
        decay_steps=None,
        batch_size=16,
        steps=steps,
    )
    trained = SeedsTrainer(config, load_dataset("digits"), [0]).train()
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.states.params)]
    finite = all(np.isfinite(leaf).all() for leaf in leaves)
    largest = max(float(np.abs(leaf).max()) for leaf in leaves)
    return finite, int(trained.states.skipped.total[0]), largest


def main() -> int:
    """Prints a line for each routing; returns 1 if one of them broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--routings", nargs="+", default=capsjax.list_routings())
    options = parser.parse_args()
    keep_compiled_programs()
    broken = []
    for routing in options.routings:
        start = time.monotonic()
        finite, skipped, largest = steep(routing, options.steps)
        verdict = "finite" if finite else "NOT FINITE"
        print(
            f"{routing}: {verdict} after {options.steps} steps, {skipped} updates skipped, largest "
            f"parameter {largest:.3g} ({time.monotonic() - start:.0f} s)",
            flush=True,
        )
        if not finite or skipped:
            broken.append(routing)
        jax.clear_caches()
    print(f"broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
