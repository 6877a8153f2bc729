"""`python -m parity check`: which cases are compared, and what is compared in each."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from parity.check import tolerance
from parity.check.arithmetic import exact
from parity.check.comparison import Comparison, error_between, missing, worst_of
from parity.check.inputs import KINDS, cut_to_size, load_images, of_kind
from parity.check.pairs import PAIRS, SIZES, DtypeName, Pair, PairMaker, Sizes, in_float64
from parity.check.stages import (
    ADAM,
    FORWARD,
    GRADIENT,
    TRAINING,
    Stage,
    Values,
    computation_order,
    of_capsjax,
    of_reference,
    symbols_in,
)
from parity.check.training import CapsjaxTraining, DrivenAdam, ReferenceTraining, adam
from train.data import Split

STEPS = 20
SNAPSHOTS = (1, STEPS)
"""The steps after which parameters and moments are held to their limits."""


class Case(NamedTuple):
    """One shape of the computation, for which several inputs are compared.

    Attributes:
        network: a name of `SIZES`.
        iterations: of the routing.
        batch: images.
        gradients: whether gradients are compared, too.
        kinds: inputs, of `parity.check.inputs.KINDS`.
        biases: with which networks: with biases, or without, in which zeros stay exactly zero.
    """

    network: str
    iterations: int
    batch: int
    gradients: bool = True
    kinds: Sequence[str] = KINDS
    biases: Sequence[bool] = (True, False)

    def __str__(self) -> str:
        """`tiny, 3 iterations, batch 7`."""
        plural = "" if self.iterations == 1 else "s"
        return f"{self.network}, {self.iterations} iteration{plural}, batch {self.batch}"


WITH_GRADIENTS = {(1, 1), (2, 7), (3, 1), (3, 7), (3, 32), (5, 32)}
"""Iterations and batch of the tiny networks whose gradients are compared: compiling takes time."""

BATCH_CASES: dict[str, Sequence[Case]] = {
    "tiny": [
        Case("tiny", iterations, batch, gradients=(iterations, batch) in WITH_GRADIENTS)
        for iterations in (1, 2, 3, 5)
        for batch in (1, 7, 32)
    ],
    "paper": [
        Case("paper", 3, 7, biases=(True,)),
        Case("paper", 3, 1, gradients=False, biases=(True,)),
        Case("paper", 3, 32, gradients=False, biases=(True,)),
        *(
            Case("paper", iterations, 1, gradients=False, kinds=("images",), biases=(True,))
            for iterations in (1, 2, 5)
        ),
    ],
}
"""What is compared for one batch, by the network's size."""

TRAINING_CASES: dict[str, Sequence[Case]] = {
    "tiny": [Case("tiny", i, b) for i, b in ((1, 7), (2, 1), (3, 32), (5, 7))],
    "paper": [Case("paper", 3, 2)],
}
"""What is trained, on ordinary images, by the network's size."""


class Growth(NamedTuple):
    """The errors of a training step after step.

    Attributes:
        case: what was trained.
        steps: the numbers of the steps.
        errors: by what is compared, the relative error after each step.
        reference: the same for the reference in float32 against itself in float64; empty where the
            check runs in float64.
    """

    case: str
    steps: list[int]
    errors: dict[str, list[float]]
    reference: dict[str, list[float]]


@dataclass
class Result:
    """What a check found.

    Attributes:
        layout: the pair that was compared.
        dtype: of the computation.
        dataset: where ordinary images came from.
        seed: of weights and images.
        comparisons: one for each stage of each case.
        growth: one for each training.
        seconds: how long it took.
    """

    layout: str
    dtype: DtypeName
    dataset: str
    seed: int
    comparisons: list[Comparison] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every error is within its limit."""
        return all(comparison.held for comparison in self.comparisons)

    @property
    def first_difference(self) -> Comparison | None:
        """Of the comparisons that failed, the one whose stage is computed first."""
        failed = [comparison for comparison in self.comparisons if not comparison.held]
        return min(failed, key=lambda c: computation_order(c.stage, self._symbols), default=None)

    @property
    def _symbols(self) -> list[str]:
        return symbols_in(comparison.stage for comparison in self.comparisons)

    def worst(self) -> list[Comparison]:
        """For each stage of each network its largest error, in order of computation."""
        worst: dict[tuple, Comparison] = {}
        for comparison in self.comparisons:
            key = (comparison.network, comparison.stage)
            if key not in worst or _badness(comparison) > _badness(worst[key]):
                worst[key] = comparison
        networks = list(dict.fromkeys(comparison.network for comparison in self.comparisons))
        symbols = self._symbols
        return sorted(
            worst.values(),
            key=lambda c: (networks.index(c.network), computation_order(c.stage, symbols)),
        )


def _badness(comparison: Comparison) -> tuple[float, float]:
    return comparison.share, comparison.error.relative


def check(
    *,
    layout: str = "reference",
    sizes: Sequence[str] = tuple(SIZES),
    x64: bool = False,
    data_dir: Path | None = None,
    seed: int = 0,
    progress: Callable[[Iterator, int], Iterator] | None = None,
    make_pair: PairMaker | None = None,
    networks: Mapping[str, Sizes] = SIZES,
    optimizer: optax.GradientTransformation | None = None,
    batch_cases: Mapping[str, Sequence[Case]] = BATCH_CASES,
    training_cases: Mapping[str, Sequence[Case]] = TRAINING_CASES,
) -> Result:
    """Compares a PyTorch network with the capsjax network that has its weights.

    Args:
        layout: a name of `PAIRS`.
        sizes: names of `SIZES`.
        x64: compute in float64.
        data_dir: a folder with MNIST's official files; without, the embedded digits are taken.
        seed: of the weights, and of which images are taken.
        progress: wraps the iterator over cases, given their number, and shows how far it is.
        make_pair: what makes the pairs, instead of `PAIRS[layout]`.
        networks: the sizes by name, where the pairs are of another model.
        optimizer: capsjax's, instead of `adam()`.
        batch_cases: by size, what is compared for one batch.
        training_cases: by size, what is trained.

    Raises:
        UserError: the data cannot be read.
    """
    start = time.monotonic()
    dtype: DtypeName = "float64" if x64 else "float32"
    make_pair = PAIRS[layout] if make_pair is None else make_pair
    dataset, split = load_images(data_dir)
    split = _shuffled(split, seed)
    result = Result(layout, dtype, dataset, seed)

    def make_sized(network: str, **options: Any) -> Pair:
        return make_pair(networks[network], **options)

    jobs: list[tuple[str, Callable[[], None]]] = []
    for size in sizes:
        images = cut_to_size(split, networks[size]["image_shape"])
        jobs += [
            (str(case), _job(_compare_batch, result, case, make_sized, images))
            for case in batch_cases.get(size, ())
        ]
        jobs += [
            (
                f"{case}, {STEPS} steps",
                _job(_compare_training, result, case, make_sized, images, optimizer),
            )
            for case in training_cases.get(size, ())
        ]
    with exact(x64=x64):
        for _, run in jobs if progress is None else progress(iter(jobs), len(jobs)):
            run()
        if jax.default_backend() == "gpu" and not x64:
            for size in sizes:
                images = cut_to_size(split, networks[size]["image_shape"])
                result.comparisons += coarser_precisions(size, make_sized, images, seed)
    result.seconds = time.monotonic() - start
    return result


def _job(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _shuffled(split: Split, seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(len(split))
    return Split(split.images[order], split.labels[order])


def _compare_batch(result: Result, case: Case, make_pair: PairMaker, split: Split) -> None:
    images, labels = split.images[: case.batch], split.labels[: case.batch]
    for biases in case.biases:
        pair = make_pair(
            case.network,
            iterations=case.iterations,
            dtype=result.dtype,
            seed=result.seed,
            biases=biases,
        )
        lengths = reduction_lengths(pair, case.batch)
        for kind in case.kinds:
            seen = of_kind(kind, images, pair)
            expected = of_reference(pair, seen, labels, gradients=case.gradients)
            actual = of_capsjax(pair, seen, labels, gradients=case.gradients)
            shown = result.dataset if kind == "images" else kind
            name = f"{case}, {shown}{'' if biases else ', no biases'}"
            compared = compare(case.network, name, actual, expected, lengths)
            if result.dtype == "float32" and not all(comparison.held for comparison in compared):
                wide = in_float64(pair)
                truth = of_reference(
                    wide, seen.astype(np.float64), labels, gradients=case.gradients
                )
                compared = [_shown_to_be_impossible(c, expected, truth) for c in compared]
            result.comparisons += compared


def _shown_to_be_impossible(comparison: Comparison, expected: Values, truth: Values) -> Comparison:
    """A comparison without a limit, if the reference misses it against itself in float64."""
    if comparison.held or comparison.stage not in expected:
        return comparison
    assert comparison.limit is not None
    of_reference = error_between(expected[comparison.stage], truth[comparison.stage]).relative
    if of_reference <= comparison.limit:
        return comparison
    note = f"the reference is {of_reference:.1e} from itself in float64"
    return dataclasses.replace(
        comparison, limit=None, error=dataclasses.replace(comparison.error, note=note)
    )


def compare(
    network: str,
    case: str,
    actual: Values,
    expected: Values,
    lengths: "ReductionLengths",
    dtype: DtypeName | None = None,
) -> list[Comparison]:
    """Compares every stage that either network has.

    Args:
        network: size, for the report.
        case: name, for the report.
        actual: what capsjax computed.
        expected: what the reference computed.
        lengths: terms of the longest sums.
        dtype: of the limits; by default that of the reference's values.
    """
    comparisons = []
    for stage in dict.fromkeys([*expected, *actual]):
        if stage not in actual:
            error = missing("capsjax")
        elif stage not in expected:
            error = missing("the reference")
        else:
            error = error_between(actual[stage], expected[stage])
        if dtype is None:
            dtype = next(iter(expected.values())).dtype.name  # type: ignore[assignment]
        assert dtype is not None
        kind: tolerance.Kind = "gradient" if stage.group == GRADIENT else "forward"
        limit = tolerance.limit(kind, dtype, lengths.of(stage))
        comparisons.append(Comparison(network, case, stage, error, limit))
    return comparisons


class ReductionLengths(NamedTuple):
    """Terms of the longest sum on the way to a stage.

    Attributes:
        conv1: to the features.
        primary: to the primary capsules, features included.
        routed: to all that follows.
        gradient: to the gradients, which sum over the batch and the positions as well.
    """

    conv1: int
    primary: int
    routed: int
    gradient: int

    def of(self, stage: Stage) -> int:
        """That of a stage."""
        if stage.group == GRADIENT:
            return self.gradient
        if stage.group == FORWARD and stage.name == "conv1":
            return self.conv1
        if stage.group == FORWARD and stage.name in ("primary_s", "primary_u"):
            return self.primary
        return self.routed


def reduction_lengths(pair: Pair, batch: int) -> ReductionLengths:
    """The longest sums of a pair's network on a batch."""
    model: Any = pair.model
    if pair.parts:
        forward, backward = pair.reference.longest_sums
        return ReductionLengths(forward, forward, forward, max(forward, batch * backward))
    terms = [
        int(np.prod(conv.kernel.shape[:3]))
        for conv in (model.features.conv, model.primary_caps.conv)
    ]
    in_capsules, classes, class_dim, primary_dim = model.class_caps.kernel.shape
    later = [primary_dim, in_capsules, classes, class_dim]
    if model.decoder is not None:
        later += [layer.kernel.shape[0] for layer in model.decoder.layers]
        later.append(int(np.prod(model.decoder.image_shape)))
    conv1, primary = terms[0], max(terms)
    routed = max(primary, *later)
    height, width, _ = model.features.output_shape
    return ReductionLengths(conv1, primary, routed, max(routed, batch * height * width))


def _compare_training(
    result: Result,
    case: Case,
    make_pair: PairMaker,
    split: Split,
    optimizer: optax.GradientTransformation | None,
) -> None:
    pair = make_pair(case.network, iterations=case.iterations, dtype=result.dtype, seed=result.seed)
    optimizer = adam() if optimizer is None else optimizer
    reference = ReferenceTraining(pair, result.dtype)
    wide = ReferenceTraining(pair, "float64") if result.dtype == "float32" else None
    capsjax, driven = CapsjaxTraining(pair, case.batch, optimizer), DrivenAdam(pair, optimizer)
    name = f"{case}, {STEPS} steps"
    growth = Growth(name, [], {}, {})
    losses = []
    training_limit = tolerance.limit("training", result.dtype)
    comparable = True  # until rounding alone takes the reference beyond the limit
    for number in range(1, STEPS + 1):
        chosen = np.arange((number - 1) * case.batch, number * case.batch) % len(split)
        batch = split.images[chosen], split.labels[chosen]
        losses.append([trained.step(*batch) for trained in (reference, capsjax, wide) if trained])
        driven.step(reference.gradients)
        is_last_or_first = number in SNAPSHOTS
        if case.network != "tiny" and not is_last_or_first and number % 5:
            continue  # snapshots of a large network take longer than its steps
        truth = reference.snapshot()
        found = {ADAM: driven.snapshot(), TRAINING: capsjax.snapshot()}
        itself = None if wide is None else wide.snapshot()
        growth.steps.append(number)
        for what in ("first_moment", "second_moment", "parameters"):
            shown = what.replace("_", " ")
            condition: float = 0.0  # what rounding alone does to the reference
            if itself is not None:
                condition = worst_of(getattr(truth, what), getattr(itself, what)).relative
                growth.reference.setdefault(shown, []).append(condition)
            for group, snapshot in found.items():
                error = worst_of(getattr(snapshot, what), getattr(truth, what))
                growth.errors.setdefault(f"{shown} ({group})", []).append(error.relative)
                if not is_last_or_first:
                    continue
                limit: float | None
                if group == ADAM:
                    limit = tolerance.limit("forward", result.dtype, number)
                else:
                    limit = training_limit if condition <= training_limit and comparable else None
                plural = "" if number == 1 else "s"
                stage = Stage(group, f"{shown} after {number} step{plural}")
                result.comparisons.append(Comparison(case.network, name, stage, error, limit))
            comparable = comparable and condition <= training_limit
    curves = np.asarray(losses, np.dtype(result.dtype)).T
    limit = training_limit if comparable else None
    stage = Stage(TRAINING, f"loss of {STEPS} steps")
    error = error_between(curves[1], curves[0])
    result.comparisons.append(Comparison(case.network, name, stage, error, limit))
    result.growth.append(growth)


def coarser_precisions(
    network: str, make_pair: PairMaker, split: Split, seed: int, *, batch: int = 7
) -> list[Comparison]:
    """The errors of capsjax in bfloat16 and with TF32 products, which have no limit.

    Args:
        network: a name of `SIZES`.
        make_pair: makes the pairs, given the name of their size.
        split: images of the network's size.
        seed: of the weights.
        batch: images.
    """
    comparisons = []
    images, labels = split.images[:batch], split.labels[:batch]
    for name, dtype, precision in (
        ("bfloat16", "bfloat16", "highest"),
        ("TF32", None, "tensorfloat32"),
    ):
        pair = make_pair(network, iterations=3, dtype="float32", seed=seed, compute=dtype)
        seen = of_kind("images", images, pair)
        expected = of_reference(pair, seen, labels)
        with jax.default_matmul_precision(precision):
            actual = of_capsjax(pair, seen, labels)
        for stage, truth in expected.items():
            error = error_between(actual[stage], truth)
            told = Stage(stage.group, stage.name)
            comparisons.append(
                Comparison(f"{network} in {name}", f"{name}, batch {batch}", told, error, None)
            )
    return comparisons
