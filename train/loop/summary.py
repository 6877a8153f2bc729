"""What `summary.json` holds of a run that has ended."""

from typing import Any

import jax

from train.learn.network import count_parameters
from train.learn.scoring import Scores
from train.learn.trainer import Trainer
from train.loop.stopwatch import Stopwatch
from train.system.files import finite_or_none


def summarise(
    trainer: Trainer, validated: Scores | None, tested: Scores, stopwatch: Stopwatch
) -> dict[str, Any]:
    """The result of a run and what it was computed on, as plain values.

    Args:
        trainer: what has trained.
        validated: the scores of the last step on the validation examples, if there are any.
        tested: its scores on the test split.
        stopwatch: of the run.
    """
    config, devices = trainer.config, trainer.mesh.devices
    stop_at = config.schedule.stop_at_accuracy
    return {
        "preset": config.preset,
        "dataset": config.data.dataset,
        "steps": int(trainer.state.step),
        "stopped_at_accuracy": validated is not None and validated.reach(stop_at),
        "parameters": count_parameters(trainer.state.params),
        **_of("validation", validated),
        **_of("test", tested),
        "test.checkpoint": "last",
        "skipped_updates": int(trainer.state.skipped.total),
        "images_per_second": stopwatch.rate,
        "wall_seconds": stopwatch.wall_seconds,
        "devices": devices.size,
        "processes": jax.process_count(),
        "device_kind": devices.flat[0].device_kind,
        "jax_version": jax.__version__,
    }


def _of(split: str, scores: Scores | None) -> dict[str, Any]:
    """What is known of a split: nothing where there is none."""
    if scores is None:
        return {}
    examples = len(scores.predictions)
    return {
        **{f"{split}.{name}": finite_or_none(value) for name, value in scores.metrics.items()},
        f"{split}.error_percent": 100 * len(scores.wrong) / examples,
        f"{split}.examples": examples,
    }
