"""What `summary.json` holds of a run that has ended."""

from typing import Any

import jax

from train.learn.network import count_parameters
from train.learn.scoring import Scores
from train.learn.trainer import Trainer
from train.loop.stopwatch import Stopwatch
from train.system.files import finite_or_none


def summarise(trainer: Trainer, scores: Scores, stopwatch: Stopwatch) -> dict[str, Any]:
    """The result of a run and what it was computed on, as plain values."""
    config, devices, examples = trainer.config, trainer.mesh.devices, len(scores.predictions)
    return {
        "preset": config.preset,
        "dataset": config.data.dataset,
        "steps": int(trainer.state.step),
        "stopped_at_accuracy": scores.reach(config.schedule.stop_at_accuracy),
        "parameters": count_parameters(trainer.state.params),
        **{f"test.{name}": finite_or_none(value) for name, value in scores.metrics.items()},
        "test.error_percent": 100 * len(scores.wrong) / examples,
        "test.examples": examples,
        "skipped_updates": int(trainer.state.skipped.total),
        "images_per_second": stopwatch.rate,
        "wall_seconds": stopwatch.wall_seconds,
        "devices": devices.size,
        "processes": jax.process_count(),
        "device_kind": devices.flat[0].device_kind,
        "jax_version": jax.__version__,
    }
