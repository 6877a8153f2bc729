"""Checks of one subject, and of all of them."""

import contextlib
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import torch

from parity.check.arithmetic import exact
from parity.check.batch import coarser_precisions, compare_batch
from parity.check.comparison import Result
from parity.check.inputs import cut_to_size, load_images
from parity.check.subjects import Subject, all_subjects
from parity.check.training import compare_training
from train.system.caches import keep_compiled_programs

Progress = Callable[[Iterator, int], Iterator]
"""Wraps an iterator over jobs, whose texts name them, given their number; shows how far it is."""


def check(
    subject: Subject,
    *,
    x64: bool = False,
    data_dir: Path | None = None,
    seed: int = 0,
    progress: Progress = lambda jobs, total: jobs,
) -> Result:
    """Compares a PyTorch network with the capsjax network that has its weights.

    Options are those of the command `check`. The seed is of the weights, and of which images are
    taken; `progress` wraps the iterator over the cases. A UserError if the data cannot be read.
    """
    start = time.monotonic()
    dataset, split = load_images(data_dir, seed)
    result = Result(subject.name, "float64" if x64 else "float32", dataset, seed)
    images = {
        name: cut_to_size(split, sizes["image_shape"]) for name, sizes in subject.sizes.items()
    }
    with exact(x64=x64):
        for case in progress(iter(subject.cases), len(subject.cases)):
            if case.trained:
                compare_training(subject, case, images[case.size], result)
            else:
                compare_batch(subject, case, images[case.size], result)
        if jax.default_backend() == "gpu" and not x64:
            for size, split in images.items():
                result.comparisons += coarser_precisions(subject, size, split, seed=seed)
    result.seconds = time.monotonic() - start
    return result


def check_all(
    subjects: Sequence[Subject] | None = None,
    *,
    data_dir: Path | None = None,
    seed: int = 0,
    progress: Progress = lambda jobs, total: jobs,
    workers: int | None = None,
) -> Mapping[str, Sequence[Result]]:
    """Checks subjects, by default all, in float32 and in float64.

    Workers are processes that share the work; by default one for each core of a CPU, since most of
    it is compiling, and none beside this one where there is an accelerator. The other arguments are
    those of `check`. By the subject's name there are both results, that in float32 first.
    """
    subjects = all_subjects() if subjects is None else subjects
    jobs = [(subject, x64) for subject in subjects for x64 in (False, True)]
    names = [f"{subject.name}, {'float64' if x64 else 'float32'}" for subject, x64 in jobs]
    check_one = functools.partial(_check_one, data_dir=data_dir, seed=seed)
    if workers is None:
        workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 0
    results: dict[str, list[Result]] = {}
    with contextlib.ExitStack() as stack:
        found: Iterator[Result] = map(check_one, jobs)
        if workers:
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)
            stack.callback(pool.shutdown, cancel_futures=True)
            found = pool.map(check_one, jobs)
        for _ in progress(iter(names), len(names)):
            result = next(found)
            results.setdefault(result.name, []).append(result)
    return results


def _prepare() -> None:
    """Prepares a process that shares the work with others."""
    torch.set_num_threads(1)
    keep_compiled_programs()


def _check_one(job: tuple[Subject, bool], *, data_dir: Path | None, seed: int) -> Result:
    subject, x64 = job
    result = check(subject, x64=x64, data_dir=data_dir, seed=seed)
    jax.clear_caches()  # of programs that no other subject has
    return result
