"""Training: from a configuration to a run folder."""

import contextlib
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax

from train.config.fit_config import FitConfig
from train.data import FeedKind, load_dataset
from train.distributed import processes
from train.distributed.decisions import Agreement
from train.distributed.preemption import StopSignals
from train.learn.dispatch import in_time, until_due
from train.learn.network import count_parameters, out_of_memory_is_bad_input
from train.learn.program import Program, assemble
from train.learn.scoring import Evaluation
from train.loop.deferred import Backlog
from train.loop.guard import BadStepsError, Guard, give_up
from train.loop.idleness import Idleness
from train.loop.journal import Journal
from train.loop.stopwatch import Stopwatch
from train.report.figures import draw_run
from train.run.checkpoints import Checkpoints, snapshot
from train.run.folder import Run, prepare_folder, require_shared
from train.run.lock import locked
from train.run.log import read_metrics
from train.system.errors import PreemptedError, UserError
from train.system.files import finite_or_none, write_json, writing


def fit(
    config: FitConfig,
    *,
    out: Path,
    data_dir: Path | None = None,
    feed_kind: FeedKind = "auto",
    devices: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    steps_per_dispatch: int | None = None,
) -> dict[str, Any]:
    """Trains a network and leaves a run folder.

    Args:
        config: what to compute.
        out: the run's folder.
        data_dir: a folder with the data set's official files.
        feed_kind: how training examples reach the devices.
        devices: how many devices of each process to use, all by default.
        resume: go on with the run in `out`, if there is one.
        overwrite: replace the run in `out`, if there is one.
        steps_per_dispatch: the most steps that the devices are told to take at once; by default as
            many as take no longer than `dispatch.SECONDS`.

    Returns:
        What `summary.json` holds.

    Raises:
        UserError: on bad input, or if the folder cannot be written or another process trains there.
        DivergedError: if more updates in a row had to be skipped than the configuration allows.
        PreemptedError: if the process was asked to stop.
    """
    if steps_per_dispatch is not None and steps_per_dispatch < 1:
        raise UserError(f"--steps-per-dispatch is {steps_per_dispatch}, but must be more than 0.")
    with processes.all_or_none():
        dataset = load_dataset(config.data.dataset, data_dir=data_dir)
    with processes.all_or_none():
        program = assemble(config, dataset, feed_kind=feed_kind, devices=devices)
    run = Run(out, config, dataset.image_shape, dataset.class_names)
    with (
        _entered(run, resume=resume, overwrite=overwrite) as resuming,
        Checkpoints(run.checkpoints) as checkpoints,
        Idleness() as idleness,
    ):
        if resuming and checkpoints.steps():
            with processes.all_or_none():
                program.state = checkpoints.load(program.state)
        watch = Stopwatch(config.schedule.batch_size, _seconds_before(run, int(program.state.step)))
        try:
            evaluation = _train(program, run, checkpoints, watch, idleness, steps_per_dispatch)
        except BadStepsError as error:
            give_up(program, run, checkpoints, error.step)
        summary = _summary(program, evaluation, watch, idleness)
        if processes.is_first():
            with writing(out):
                write_json(run.summary, summary)
                rows, test = read_metrics(run.metrics), program.dataset.test
                draw_run(run, rows, program.model(), test, evaluation)
    return summary


@contextlib.contextmanager
def _entered(run: Run, *, resume: bool, overwrite: bool) -> Iterator[bool]:
    """Claims and prepares the folder of a run, once for all processes.

    Yields:
        Whether there is a run to go on with.
    """
    with contextlib.ExitStack() as claim:
        resuming = False
        with processes.all_or_none():
            if processes.is_first():
                with writing(run.folder):
                    run.folder.mkdir(parents=True, exist_ok=True)
                claim.enter_context(locked(run.folder))
                resuming = prepare_folder(run, resume=resume, overwrite=overwrite)
        with processes.all_or_none():
            require_shared(run.folder)
        yield processes.from_first(resuming)


def _train(
    program: Program,
    run: Run,
    checkpoints: Checkpoints,
    watch: Stopwatch,
    idleness: Idleness,
    steps_per_dispatch: int | None,
) -> Evaluation:
    """Takes the steps that are left; returns the evaluation of the last one.

    There is none left where an evaluation has reached `config.schedule.stop_at_accuracy`.

    The devices never wait for the host: what is done with the results of a dispatch is done when
    the next one has been sent.
    """
    step, total = int(program.state.step), program.total_steps
    log_every, evaluate_every, checkpoint_every = program.intervals
    batches = program.feed.batches(step, total)
    in_memory = partial(out_of_memory_is_bad_input, program.config.schedule.batch_size)
    evaluation = None
    if program.config.schedule.stop_at_accuracy and 0 < step < total and step % evaluate_every == 0:
        with in_memory():
            evaluation = program.evaluate()  # a run that is resumed may have reached its end
    guard = Guard(program.config.optimizer.max_skipped, int(program.state.skipped.in_a_row))

    with (
        StopSignals() as signals,
        Journal(program, run, watch, silent=not processes.is_first()) as journal,
        Backlog() as backlog,
    ):
        agreement = Agreement(signals)
        while step < total and not _is_enough(program, evaluation):
            most = steps_per_dispatch or in_time(watch.seconds_per_step, program.capacity)
            wishes = agreement.wishes(min(most, program.capacity))
            count = until_due(step, total, program.intervals, agreement.most)
            agreed_before = program.agreed
            with in_memory():
                next_batches = list(itertools.islice(batches, count))
                idleness.sending()
                metrics = program.train(next_batches, wishes)
                idleness.sent(metrics)
                backlog.catch_up()
            agreement.settle(agreed_before)
            step += count
            stop = agreement.stop
            evaluate = step % evaluate_every == 0 or step == total
            log = step % log_every == 0 or evaluate or stop
            backlog.add(metrics, partial(journal.trained, step, count, metrics, log=log))
            backlog.add(metrics, partial(guard.look, step - count, metrics))
            accuracy = None
            if evaluate:
                with in_memory():
                    backlog.catch_up()
                with watch.paused(), idleness.paused():
                    evaluation = program.evaluate()
                    journal.evaluated(step, evaluation)
                accuracy = evaluation.metrics["accuracy"]
            if evaluate or stop or step % checkpoint_every == 0:
                state = snapshot(program.state)
                backlog.add(state, partial(checkpoints.save, state, accuracy))
            if stop and step < total:
                backlog.catch_up()
                by = signals.received.name if signals.received else "another process"
                raise PreemptedError(
                    f"asked to stop ({by}): the checkpoint of step {step} is written, and the "
                    "same command with --resume goes on from there."
                )
    return evaluation or program.evaluate()  # there was no step left to take


def _is_enough(program: Program, evaluation: Evaluation | None) -> bool:
    """Whether an evaluation is of the accuracy that the run was to reach."""
    wanted = program.config.schedule.stop_at_accuracy
    if wanted is None or evaluation is None:
        return False
    return evaluation.metrics["accuracy"] >= wanted


def _seconds_before(run: Run, step: int) -> float:
    """Wall time that a resumed run had taken when it was at this step."""
    seconds = [
        row["wall_seconds"]
        for row in read_metrics(run.metrics)
        if row["step"] <= step and "wall_seconds" in row
    ]
    return max(seconds, default=0.0)


def _summary(
    program: Program, evaluation: Evaluation, watch: Stopwatch, idleness: Idleness
) -> dict[str, Any]:
    wrong = len(evaluation.wrong)
    test = {f"test.{name}": finite_or_none(value) for name, value in evaluation.metrics.items()}
    return {
        "preset": program.config.preset,
        "dataset": program.config.data.dataset,
        "steps": int(program.state.step),
        "stopped_at_accuracy": _is_enough(program, evaluation),
        "parameters": count_parameters(program.state.params),
        **test,
        "test.error_percent": 100 * wrong / len(evaluation.predictions),
        "test.examples": len(evaluation.predictions),
        "skipped_updates": int(program.state.skipped.total),
        "images_per_second": watch.rate,
        "wall_seconds": watch.wall_seconds,
        "device_idle_percent": idleness.percent,
        "devices": program.mesh.devices.size,
        "processes": jax.process_count(),
        "device_kind": program.mesh.devices.flat[0].device_kind,
        "jax_version": jax.__version__,
    }
