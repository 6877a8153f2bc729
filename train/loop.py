"""Training: from a configuration to a run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from train.checkpoint import Checkpoints
from train.config import FitConfig
from train.data import FeedKind, load_dataset
from train.evaluation import Evaluation
from train.figures import draw_run
from train.metrics import Mean, merge
from train.network import count_parameters, learning_rate, out_of_memory_is_bad_input
from train.program import Program, assemble
from train.run import Run, finite_or_none, prepare_folder, write_json, writing
from train.stopwatch import Stopwatch
from train.writers import Progress, Writers, read_metrics


def fit(
    config: FitConfig,
    *,
    out: Path,
    data_dir: Path | None = None,
    feed_kind: FeedKind = "auto",
    devices: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trains a network and leaves a run folder.

    Args:
        config: what to compute.
        out: the run's folder.
        data_dir: a folder with the data set's official files.
        feed_kind: how training examples reach the devices.
        devices: how many local devices to use, all by default.
        resume: go on with the run in `out`, if there is one.
        overwrite: replace the run in `out`, if there is one.

    Returns:
        What `summary.json` holds.

    Raises:
        UserError: on bad input, or if the folder cannot be written.
    """
    dataset = load_dataset(config.dataset, data_dir=data_dir)
    program = assemble(config, dataset, feed_kind=feed_kind, devices=devices)
    run = Run(out, config, dataset.image_shape, dataset.class_names)
    resuming = prepare_folder(run, resume=resume, overwrite=overwrite)
    with Checkpoints(run.checkpoints) as checkpoints:
        if resuming and checkpoints.steps():
            program.state = checkpoints.load(program.state)
        watch = Stopwatch(config.batch_size, _seconds_before(run, int(program.state.step)))
        evaluation = _train(program, run, checkpoints, watch)
    summary = _summary(program, evaluation, watch)
    with writing(out):
        write_json(run.summary, summary)
        draw_run(run, read_metrics(run.metrics), program.model(), dataset.test, evaluation)
    return summary


def _train(program: Program, run: Run, checkpoints: Checkpoints, watch: Stopwatch) -> Evaluation:
    """Takes the steps that are left; returns the evaluation of the last one."""
    config, examples = program.config, len(program.dataset.train)
    start, total = int(program.state.step), program.total_steps
    evaluate_every = config.evaluation_interval(examples)
    schedule = learning_rate(config, examples)
    unmerged: list[Mapping[str, Mean]] = []
    evaluation = None

    with Writers(run, start) as writers, Progress(start, total, config.batch_size) as progress:
        for step, batch in enumerate(program.feed.batches(start, total), start + 1):
            with out_of_memory_is_bad_input(config.batch_size):
                unmerged.append(program.train(batch))
                if watch.step():
                    jax.block_until_ready(unmerged)
                    watch.start()
            evaluation_due = step % evaluate_every == 0 or step == total

            if step % config.log_every == 0 or evaluation_due:
                metrics = merge(unmerged)
                unmerged.clear()
                watch.lap()
                progress.update(step, metrics, watch.recent_rate)
                writers.write(
                    {
                        "step": step,
                        "split": "train",
                        **metrics,
                        "epoch": step * config.batch_size / examples,
                        "learning_rate": float(schedule(step - 1)),
                        "images_per_second": watch.recent_rate,
                        "wall_seconds": watch.wall_seconds,
                    }
                )
            if evaluation_due:
                with watch.paused():
                    evaluation = program.evaluate()
                    progress.note(f"step {step}: {describe(evaluation)}")
                    writers.write({"step": step, "split": "test", **evaluation.metrics})
                    checkpoints.save(program.state, evaluation.metrics["accuracy"])
            elif step % config.checkpoint_every == 0:
                checkpoints.save(program.state)
    return evaluation or program.evaluate()  # there was no step left to take


def describe(evaluation: Evaluation) -> str:
    """The result of an evaluation in words."""
    accuracy, loss = evaluation.metrics["accuracy"], evaluation.metrics["loss"]
    return f"test accuracy {accuracy:.2%}, test loss {loss:.4f}"


def _seconds_before(run: Run, step: int) -> float:
    """Wall time that a resumed run had taken when it was at this step."""
    seconds = [
        row["wall_seconds"]
        for row in read_metrics(run.metrics)
        if row["step"] <= step and "wall_seconds" in row
    ]
    return max(seconds, default=0.0)


def _summary(program: Program, evaluation: Evaluation, watch: Stopwatch) -> dict[str, Any]:
    accuracy = evaluation.metrics["accuracy"]
    wrong = round((1 - accuracy) * len(evaluation.predictions))
    test = {f"test.{name}": finite_or_none(value) for name, value in evaluation.metrics.items()}
    return {
        "preset": program.config.preset,
        "dataset": program.config.dataset,
        "steps": int(program.state.step),
        "parameters": count_parameters(program.state.params),
        **test,
        "test.error_percent": 100 * wrong / len(evaluation.predictions),
        "test.examples": len(evaluation.predictions),
        "images_per_second": watch.rate,
        "wall_seconds": watch.wall_seconds,
        "devices": program.mesh.devices.size,
        "device_kind": program.mesh.devices.flat[0].device_kind,
        "jax_version": jax.__version__,
    }
