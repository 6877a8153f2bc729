"""The subjects of a check: weight layouts, routings and models, each with its cases."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from parity.check.inputs import KINDS
from parity.check.pairs import (
    LAYOUTS,
    SIZES,
    Pair,
    PairMaker,
    Sizes,
    layout_pair,
    model_pair,
    routing_pair,
)
from parity.reference import OTHERS
from parity.reference.models import MODELS, ModelReference
from parity.reference.routing import ROUTINGS
from train.learn.user_routing import takes_iterations
from train.system.errors import UserError

STEPS = 20
"""Of each training."""


class Case(NamedTuple):
    """One shape of the computation, of which a batch or a training is compared.

    Attributes:
        size: the name of the networks' size.
        iterations: of the routing.
        batch: images.
        gradients: whether gradients are compared, too.
        kinds: inputs, of `parity.check.inputs.KINDS`.
        biases: with which networks: with biases, or without, in which zeros stay exactly zero.
        trained: whether steps of training on ordinary images are compared instead.
    """

    size: str
    iterations: int
    batch: int
    gradients: bool = True
    kinds: Sequence[str] = KINDS
    biases: Sequence[bool] = (True, False)
    trained: bool = False

    def __str__(self) -> str:
        """`tiny, 3 iterations, batch 7`."""
        iterations = f"{self.iterations} iteration{'s' * (self.iterations > 1)}"
        steps = f", {STEPS} steps" if self.trained else ""
        return f"{self.size}, {iterations}, batch {self.batch}{steps}"


class Subject(NamedTuple):
    """A PyTorch implementation and the capsjax model that should compute the same.

    Attributes:
        name: of the subject in the result.
        make_pair: makes its networks.
        cases: the cases that are compared.
        sizes: arguments of the networks, by the names of their sizes.
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


def layout_subject(layout: str, sizes: Collection[str] | None = None) -> Subject:
    """A public implementation by the name of its weight layout, of `LAYOUTS`.

    Its sizes are those of `SIZES`, by default all; networks of `OTHERS` are tiny.

    Raises:
        UserError: there is no such layout, or it cannot have these sizes.
    """
    _require("layout", layout, LAYOUTS)
    make_pair = functools.partial(layout_pair, layout)
    if layout not in OTHERS:
        chosen = {name: SIZES[name] for name in sizes or SIZES}
        cases = [case for case in _CAPSNET_CASES if case.size in chosen]
        return Subject(layout, make_pair, cases, chosen)
    if sizes is not None:
        raise UserError(f"--layout {layout} compares tiny networks: leave --sizes out.")
    return _model_subject(layout, make_pair, OTHERS[layout])


def routing_subject(name: str) -> Subject:
    """CapsNet with a routing by its name, of `ROUTINGS`.

    Raises:
        UserError: there is no such routing.
    """
    _require("routing", name, ROUTINGS)
    cases = [_THREE_ITERATIONS, _THREE_ITERATIONS._replace(trained=True)]
    if takes_iterations(name):
        cases.insert(0, _ONE_ITERATION)
    make_pair = functools.partial(routing_pair, name)
    return Subject(f"routing {name}", make_pair, cases, {"tiny": SIZES["tiny"]})


def model_subject(name: str) -> Subject:
    """A published network by its name, of `MODELS`.

    Raises:
        UserError: there is no such model.
    """
    _require("model", name, MODELS)
    return _model_subject(f"model {name}", functools.partial(model_pair, name), MODELS[name])


def all_subjects() -> list[Subject]:
    """Every routing and every model."""
    routings = [routing_subject(name) for name in sorted(ROUTINGS)]
    return routings + [model_subject(name) for name in sorted(MODELS)]


def _model_subject(name: str, make_pair: PairMaker, kind: type[ModelReference]) -> Subject:
    published = _THREE_ITERATIONS._replace(iterations=kind.published_iterations)
    cases = [_ONE_ITERATION, published] if kind.with_iterations(1) else [published]
    if kind.normalises_batch or kind.pools:
        cases = [case._replace(kinds=_VARIED) for case in cases]
        if not kind.shows_rounding:
            cases.append(published._replace(gradients=False, kinds=_ALIKE))
    return Subject(name, make_pair, [*cases, published._replace(trained=True)], {"tiny": kind.tiny})


def _require(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UserError(f"there is no {what} {name!r}: choose one of {', '.join(sorted(known))}.")
