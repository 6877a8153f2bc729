"""`python -m parity check --all`: every routing and every model, in both precisions."""

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import torch

from parity.check.cases import Case, Result, check
from parity.check.pairs import (
    SIZES,
    PairMaker,
    Sizes,
    iterates,
    model_pair,
    other_pair,
    routing_pair,
)
from parity.reference import OTHERS
from parity.reference.models import MODELS, ModelReference
from parity.reference.routing import ROUTINGS
from train.system.caches import keep_compiled_programs
from train.system.errors import UserError

ONE_ITERATION = Case("tiny", 1, 7, gradients=False, biases=(True,))
THREE_ITERATIONS = Case("tiny", 3, 7)
TRAINED = Case("tiny", 3, 7)

# Batch normalisation divides by the deviation of a feature over the batch, and by almost nothing
# where all images are alike or each is a constant: what it then sends back are rounding errors, a
# few hundred times enlarged, of gradients that are zero. So there it is compared forwards alone,
# on images that are exactly alike. Not even that, where activations are normalised that a routing
# makes of equal votes: its logarithms round one capsule otherwise than the next. Nor where less is
# added to a variance than 0.001. It is alike with the largest of several values: where they are the
# same, rounding decides which gets the gradient.
VARIED = ("images", "1e4")
ALIKE = ("zeros", "1e-20")


class Subject(NamedTuple):
    """What is proven by itself: a routing, in the place of CapsNet's own, or another network.

    Attributes:
        name: what it is called in the result.
        make_pair: makes its pairs.
        cases: what is compared for one batch.
        tiny: arguments of the network.
        trained: what is trained.
    """

    name: str
    make_pair: PairMaker
    cases: Sequence[Case]
    tiny: Sizes = SIZES["tiny"]
    trained: Case = TRAINED


def routing_subject(name: str) -> Subject:
    """A routing by its name, of `ROUTINGS`."""
    cases = (ONE_ITERATION, THREE_ITERATIONS) if iterates(name) else (THREE_ITERATIONS,)
    return Subject(f"routing {name}", functools.partial(routing_pair, name), cases)


def model_subject(name: str) -> Subject:
    """A model by its name, of `MODELS`."""
    kind = MODELS[name]
    return Subject(f"model {name}", functools.partial(model_pair, name), _cases(kind), kind.tiny)


def layout_subject(name: str) -> Subject:
    """A public implementation of another network by the name of its layout, of `OTHERS`."""
    kind = OTHERS[name]
    trained = TRAINED._replace(iterations=kind.published_iterations)
    return Subject(name, functools.partial(other_pair, name), _cases(kind), kind.tiny, trained)


def _cases(kind: type[ModelReference]) -> Sequence[Case]:
    published = THREE_ITERATIONS._replace(iterations=kind.published_iterations)
    cases = [published]
    if kind.with_iterations(1):
        cases.insert(0, ONE_ITERATION)
    if kind.normalises_batch or kind.pools:
        cases = [case._replace(kinds=VARIED) for case in cases]
        if not kind.shows_rounding:
            cases.append(published._replace(gradients=False, kinds=ALIKE))
    return cases


def find_subject(routing: str | None, model: str | None) -> Subject:
    """A routing or a model, whichever is named.

    Raises:
        UserError: there is none of that name.
    """
    if routing is not None:
        _require("routing", routing, ROUTINGS)
        return routing_subject(routing)
    assert model is not None
    _require("model", model, MODELS)
    return model_subject(model)


def _require(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UserError(f"there is no {what} {name!r}: choose one of {', '.join(sorted(known))}.")


def subjects() -> list[Subject]:
    """Everything there is to prove."""
    routings = [routing_subject(name) for name in sorted(ROUTINGS)]
    return routings + [model_subject(name) for name in sorted(MODELS)]


def check_subject(
    subject: Subject, *, x64: bool, data_dir: Path | None = None, seed: int = 0
) -> Result:
    """Compares a subject with its reference: one batch, every kind of input, 20 steps of training.

    Args:
        subject: what to prove.
        x64: compute in float64.
        data_dir: a folder with MNIST's official files; without, the embedded digits are taken.
        seed: of the weights, and of which images are taken.

    Raises:
        UserError: the data cannot be read.
    """
    return check(
        layout=subject.name,
        sizes=("tiny",),
        x64=x64,
        data_dir=data_dir,
        seed=seed,
        make_pair=subject.make_pair,
        networks={"tiny": subject.tiny},
        batch_cases={"tiny": subject.cases},
        training_cases={"tiny": [subject.trained]},
    )


def check_all(
    *,
    data_dir: Path | None = None,
    seed: int = 0,
    progress: Callable[[Iterator, int], Iterator],
    chosen: Sequence[Subject] | None = None,
    workers: int | None = None,
) -> Mapping[str, Sequence[Result]]:
    """Checks every subject in float32 and in float64.

    Args:
        data_dir: as of `check_subject`.
        seed: as of `check_subject`.
        progress: wraps the iterator over pairs of a name and a job, given their number.
        chosen: what to prove, by default everything.
        workers: processes that share the work; by default one for each core of a CPU, since most of
            it is compiling, and none beside this one where there is an accelerator.

    Returns:
        By the subject's name both results, that in float32 first.
    """
    jobs = [
        (subject, x64)
        for subject in (subjects() if chosen is None else chosen)
        for x64 in (False, True)
    ]
    check_one = functools.partial(_check_one, data_dir=data_dir, seed=seed)
    if workers is None:
        workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 0
    results: dict[str, list[Result]] = {}
    with contextlib.ExitStack() as stack:
        if workers:
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)
            stack.callback(pool.shutdown, cancel_futures=True)
            found: Iterator[Result] = pool.map(check_one, jobs)
        else:
            found = map(check_one, jobs)
        names = [f"{subject.name}, {'float64' if x64 else 'float32'}" for subject, x64 in jobs]
        for _, (subject, _x64) in progress(iter(zip(names, jobs, strict=True)), len(jobs)):
            results.setdefault(subject.name, []).append(next(found))
    return results


def _prepare() -> None:
    """Settles in a process that shares the work with others."""
    torch.set_num_threads(1)
    keep_compiled_programs()


def _check_one(job: tuple[Subject, bool], *, data_dir: Path | None, seed: int) -> Result:
    subject, x64 = job
    result = check_subject(subject, x64=x64, data_dir=data_dir, seed=seed)
    jax.clear_caches()  # of programs that no other subject has
    return result
