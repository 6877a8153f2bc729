"""Training: from a configuration to a run folder."""

import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax

from train.config.checked import flag
from train.config.config_file import EARLY_END
from train.config.fit_config import FitConfig
from train.data import Dataset, FeedKind
from train.distributed import processes
from train.distributed.preemption import StopSignals
from train.learn.network import out_of_memory_is_bad_input
from train.learn.scoring import Scores
from train.learn.trainer import Trainer, assemble
from train.learn.user_routing import code_fingerprint
from train.loop.deferred import DeferredWork
from train.loop.early_end import EarlyEnd
from train.loop.guard import Guard
from train.loop.header import header
from train.loop.initial_weights import start_from_weights
from train.loop.profiling import Profiler
from train.run.checkpoint_files import Checkpoints, checksum, snapshot
from train.run.folder import ROUTING, Run, entered, load_run
from train.run.log import Log, read_metrics
from train.system.errors import PreemptedError, UserError
from train.system.files import write_json, writing

_PLACES = {"dataset", "init_from"}


def fit(
    config: FitConfig,
    *,
    out: Path,
    data_dir: Path | None = None,
    dataset: Dataset | None = None,
    feed_kind: FeedKind = "auto",
    devices: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    steps_per_dispatch: int | None = None,
    profile: int | None = None,
) -> dict[str, Any]:
    """Trains a network and leaves a run folder.

    Args:
        config: what to compute.
        out: the run's folder.
        data_dir: a folder with the data set's official files.
        dataset: what the configuration names, if that is loaded already.
        feed_kind: as of `make_feed`.
        devices: how many devices of each process to use, all by default.
        resume: go on with the run in `out`, if there is one.
        overwrite: replace the run in `out`, if there is one.
        steps_per_dispatch: the most steps that the devices take at once, up to `Trainer.capacity`;
            nothing is shown, and no signal heeded, before the last of them. 4 by default on a CPU,
            whose steps are long, and as many as there is room for elsewhere.
        profile: record so many steps in the run's folder `profile`, which TensorBoard shows.

    Returns:
        What `summary.json` holds. Where a run that is resumed has ended, nothing is written.

    Raises:
        UserError: on bad input, if the folder cannot be written or another process trains there,
            or if the processes of the run differ in what they compute, or of what.
        DivergedError: if more updates in a row had to be skipped than the configuration allows.
        PreemptedError: if the process was asked to stop, also where the run has ended meanwhile.
    """
    with processes.all_or_none():
        dataset = dataset or config.data.load(data_dir)
    code = code_fingerprint(config.model.routing)
    run = Run(
        out,
        config,
        dataset.image_shape,
        dataset.class_names,
        {**dataset.fingerprints, **({ROUTING: code} if code else {})},
        dataset.train.labels_per_image,
    )
    with processes.all_or_none():
        processes.require_same(
            {
                # Two that name files, which may lie elsewhere: what is in them is compared.
                **{flag(n): v for n, v in config.flat().items() if n not in _PLACES},
                "--devices": devices,
                "--feed": feed_kind,
                "--steps-per-dispatch": steps_per_dispatch,
                "the images, or the code of an own routing": run.fingerprints,
                "the classes": run.class_names,
            }
        )
    # With several processes `pmap` lowers a step for arrays alone, and not for their shapes; and
    # the others would miss a process that ends before the first dispatch.
    alone = not processes.are_several()
    with processes.all_or_none():
        trainer = assemble(config, dataset, feed_kind=feed_kind, devices=devices, trace=alone)
    for name in EARLY_END:
        if config.value(name) is not None and trainer.dataset.validation is None:
            raise UserError(
                f"{flag(name)} looks at validation images, and none are set aside: leave it out, "
                "or give --validation."
            )
    # Before the folder is touched, which may be where they come from; but for a run that goes on.
    begins = not processes.any_process(resume and run.checkpoints.is_dir())
    if begins:
        _start(trainer)
    most = steps_per_dispatch or (4 if jax.default_backend() == "cpu" else trainer.capacity)
    with (
        entered(run, resume=resume, overwrite=overwrite) as resuming,
        StopSignals(lossless=alone) as signals,
        Checkpoints(run.checkpoints) as checkpoints,
    ):
        if resuming and checkpoints.steps():
            with processes.all_or_none():
                trainer.state = checkpoints.load(trainer.state)
        elif not begins:
            _start(trainer)
        if (ended := _ended(trainer, run)) is not None:
            return ended
        if processes.is_first() and load_run(out) != run:
            with writing(out):
                run.save()  # that it goes on with other settings
        if alone:
            trainer.compile_ahead()  # while the run's files are begun
        if processes.is_first():
            print(header(trainer, run), file=sys.stderr)
        guard = Guard(trainer, run, checkpoints)
        with Log(trainer, run) as log, Profiler(run.profile, profile) as profiler:
            start = int(trainer.state.step)
            end = EarlyEnd(config.schedule, _validated(run, start, trainer.intervals[1]))
            validated = _train(trainer, most, log, guard, checkpoints, profiler, end, signals)
            signals.lossless = False
            with out_of_memory_is_bad_input(config.schedule.batch_size):
                tested = trainer.score(trainer.dataset.test)
            log.scored(int(trainer.state.step), "test", tested)
        summary = log.summary(validated, tested, end.reasons)
        with processes.all_or_none(), writing(out):
            if processes.is_first():
                from train.report.figures import Tested, draw_run  # Matplotlib takes a second

                of_test = Tested(run, trainer.model(), trainer.dataset.test, tested)
                draw_run(of_test, read_metrics(run.metrics))
                write_json(run.summary, summary)  # last: it says that all is there
        if processes.any_process(signals.received is not None):
            raise _stopped(signals, f"the run has ended, and its result is in {out}.")
    return summary


def _start(trainer: Trainer) -> None:
    """Gives the network the weights that it is to start from, which are the same for all."""
    with processes.all_or_none():
        start_from_weights(trainer)
    if (name := trainer.config.model.init_from) is not None:
        with processes.all_or_none():
            weights = checksum(trainer.state.params) if processes.are_several() else None
            processes.require_same({f"the weights of --init-from {name}": weights})


def _stopped(signals: StopSignals, what: str) -> PreemptedError:
    by = signals.received.name if signals.received else "another process"
    return PreemptedError(f"asked to stop ({by}): {what}")


def _ended(trainer: Trainer, run: Run) -> dict[str, Any] | None:
    """The result of a run that has taken all of its steps, or has ended early, if it has."""
    step, found = int(trainer.state.step), run.result()
    if found is None or found["steps"] != step or not run.figures.is_dir():
        found = None
    if processes.any_process(found is None):
        return None
    before = _validated(run, step + 1, trainer.intervals[1])
    if step < trainer.total_steps and not EarlyEnd(trainer.config.schedule, before).is_due:
        return None
    if processes.is_first():
        print(f"note: {run.folder} has ended, so nothing is left to do", file=sys.stderr)
    return found


def _validated(run: Run, start: int, evaluate_every: int) -> list[float]:
    """The accuracies of the evaluations that came when they were due, before a run goes on."""
    return processes.as_in_first(
        [
            row["accuracy"]
            for row in (read_metrics(run.metrics) if processes.is_first() else ())
            if row["split"] == "validation"
            and row["step"] < start
            and not row["step"] % evaluate_every
            and row.get("accuracy") is not None
        ]
    )


def _train(
    trainer: Trainer,
    most: int,
    log: Log,
    guard: Guard,
    checkpoints: Checkpoints,
    profiler: Profiler,
    end: EarlyEnd,
    signals: StopSignals,
) -> Scores | None:
    """Takes the steps that are left, or those to an early end, at most so many at once.

    Returns the scores of the last one on the validation examples, if there are any.

    The devices never wait for the host: what is done with the results of a dispatch is done when
    the next one has been sent. That a process was asked to stop goes with its next dispatch to all
    others, and is known when the results of that one are there: all stop at the same step.
    """
    schedule = trainer.config.schedule
    step, total = int(trainer.state.step), trainer.total_steps
    log_every, evaluate_every, checkpoint_every = trainer.intervals
    batches = trainer.feed.batches(step, total)
    in_memory = partial(out_of_memory_is_bad_input, schedule.batch_size)
    validation = trainer.dataset.validation
    scores: Scores | None = None
    may_end = end.is_possible and step % evaluate_every == 0
    if validation is not None and step and (step == total or may_end):
        with in_memory():
            scores = trainer.score(validation)  # a run that is resumed may have reached its end
        end.add(scores.metrics["accuracy"])

    with DeferredWork() as deferred:
        while step < total and not end.is_due:
            profiler.reached(step, trainer.state)
            asked, asked_before = signals.received is not None, trainer.stopping
            count = trainer.steps_until_due(step, most)
            with in_memory():
                metrics = trainer.train(list(itertools.islice(batches, count)), stop=asked)
                deferred.do_all()  # with the results of the dispatch before
            step += count
            signals.lossless = False

            stop = bool(asked_before) if processes.are_several() else signals.received is not None
            evaluate = step % evaluate_every == 0 or step == total
            line = step % log_every == 0 or evaluate or stop
            deferred.add(metrics, partial(log.trained, step, count, metrics, line=line))
            deferred.add(metrics, partial(guard.check, step - count, metrics))
            if evaluate:
                with in_memory():
                    deferred.do_all()
                if validation is not None:
                    with log.stopwatch.paused():
                        scores = trainer.score(validation)
                        log.scored(step, "validation", scores)
                    end.add(scores.metrics["accuracy"])
            if evaluate or stop or step % checkpoint_every == 0:
                state = snapshot(trainer.state)
                accuracy = scores.metrics["accuracy"] if scores and evaluate else None
                deferred.add(state, partial(checkpoints.save, state, accuracy))
            if stop and step < total:
                deferred.do_all()
                written = f"the checkpoint of step {step} is written, and the same command with"
                raise _stopped(signals, f"{written} --resume goes on from there.")
    return scores
