"""The subjects of a check: weight layouts, routings and models, each with its cases."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from parity.check.inputs import KINDS
from parity.check.pairs import MAKERS, SIZES, Pair, PairMaker, Sizes
from parity.reference import OTHERS, ModelReference
from train.learn.user_routing import takes_iterations
from train.system.errors import UserError

STEPS = 20
"""Of each training."""


class Case(NamedTuple):
    """One shape of the computation, of which a batch or a training is compared."""

    size: str  # the name of the networks' size
    iterations: int  # of the routing
    batch: int  # images
    gradients: bool = True  # whether they are compared, too
    kinds: Sequence[str] = KINDS  # of inputs
    biases: Sequence[bool] = (True, False)  # without biases, zeros stay exactly zero
    trained: bool = False  # whether steps on ordinary images are compared instead

    def __str__(self) -> str:
        """`tiny, 3 iterations, batch 7`."""
        iterations = f"{self.iterations} iteration{'s' * (self.iterations > 1)}"
        steps = f", {STEPS} steps" if self.trained else ""
        return f"{self.size}, {iterations}, batch {self.batch}{steps}"


class Subject(NamedTuple):
    """A PyTorch implementation and the capsjax model that should compute the same, in these cases.

    `sizes` are the arguments of the networks, by the names that cases have for them.
    """

    name: str
    make_pair: PairMaker
    cases: Sequence[Case]
    sizes: Mapping[str, Sizes]

    def pair(self, case: Case, **options: Any) -> Pair:
        """The networks of a case; options are those of `PairMaker` but for sizes and iterations."""
        return self.make_pair(self.sizes[case.size], iterations=case.iterations, **options)


# Compiling takes time, so of tiny networks only these gradients are compared: iterations, batch.
_WITH_GRADIENTS = {(1, 1), (2, 7), (3, 1), (3, 7), (3, 32), (5, 32)}

_CAPSNET_CASES = [
    *(
        Case("tiny", iterations, batch, gradients=(iterations, batch) in _WITH_GRADIENTS)
        for iterations in (1, 2, 3, 5)
        for batch in (1, 7, 32)
    ),
    *(Case("tiny", i, batch, trained=True) for i, batch in ((1, 7), (2, 1), (3, 32), (5, 7))),
    Case("paper", 3, 7, biases=(True,)),
    *(Case("paper", 3, batch, gradients=False, biases=(True,)) for batch in (1, 32)),
    *(Case("paper", i, 1, False, kinds=("images",), biases=(True,)) for i in (1, 2, 5)),
    Case("paper", 3, 2, trained=True),
]

_ONE_ITERATION = Case("tiny", 1, 7, gradients=False, biases=(True,))
_THREE_ITERATIONS = Case("tiny", 3, 7)

# Where images are alike, batch normalisation divides by almost nothing, and its gradients are
# rounding errors of zero, enlarged; of several largest values rounding decides which gets the
# gradient. So there networks with either are compared forwards alone, on images that are exactly
# alike; not even that where rounding shows: where activations that a routing makes of equal votes
# are normalised, or less than 0.001 is added to a variance.
_VARIED = ("images", "1e4")
_ALIKE = ("zeros", "1e-20")
_NOT_NEAR_ZERO = tuple(kind for kind in KINDS if kind != "1e-20")


def find_subject(what: str, name: str, sizes: Collection[str] | None = None) -> Subject:
    """A public implementation by its layout, CapsNet with a routing, or a published model.

    `MAKERS` has what there is. Of `SIZES`, a layout of CapsNet has all, or those that are given;
    all else is tiny. A UserError if there is none of that name, or it cannot have these sizes.
    """
    known, make_pair = MAKERS[what]
    if name not in known:
        raise UserError(f"there is no {what} {name!r}: choose one of {', '.join(sorted(known))}.")
    shown = name if what == "layout" else f"{what} {name}"
    make_pair = functools.partial(make_pair, name)
    if what == "layout" and name not in OTHERS:
        chosen = {size: SIZES[size] for size in sizes or SIZES}
        cases = [case for case in _CAPSNET_CASES if case.size in chosen]
        return Subject(shown, make_pair, cases, chosen)
    if sizes is not None:
        raise UserError(f"--{what} {name} compares tiny networks: leave --sizes out.")
    if what == "routing":
        cases = [_ONE_ITERATION] if takes_iterations(name) else []
        cases += [_THREE_ITERATIONS, _THREE_ITERATIONS._replace(trained=True)]
        return Subject(shown, make_pair, cases, {"tiny": SIZES["tiny"]})
    return Subject(shown, make_pair, _model_cases(known[name]), {"tiny": known[name].tiny})


def all_subjects() -> list[Subject]:
    """Every routing and every model."""
    every = ((what, name) for what in ("routing", "model") for name in sorted(MAKERS[what][0]))
    return [find_subject(what, name) for what, name in every]


def _model_cases(kind: type[ModelReference]) -> list[Case]:
    published = _THREE_ITERATIONS._replace(iterations=kind.published_iterations)
    cases = [_ONE_ITERATION, published] if kind.with_iterations(1) else [published]
    if kind.vanishes:
        cases = [case._replace(kinds=_NOT_NEAR_ZERO) for case in cases]
    if kind.normalises_batch or kind.pools:
        cases = [case._replace(kinds=_VARIED) for case in cases]
        if not kind.shows_rounding:
            cases.append(published._replace(gradients=False, kinds=_ALIKE))
    return [*cases, published._replace(trained=True)]
