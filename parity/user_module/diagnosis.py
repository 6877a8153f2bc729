"""The choices of public dialects that explain a difference: one at a time, in pairs, and on."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from parity.check.comparison import error_between
from parity.user_module.dialect import (
    Dialect,
    Switch,
    Variants,
    as_flags,
    choices,
    detached,
    has_dialects,
    replaced,
)
from parity.user_module.sides import Sides
from train.system.progress import Progress

MOST_GRADIENTS = 100
"""Of how many combinations that agree forwards the gradient is taken."""

MOST_SWITCHES, KEPT = 6, 3
"""How many switches a combination has, and how many of the best ones of a size are gone on with."""

NEAR = 0.1
"""The largest relative error that an epsilon is tried to explain the rest of."""

Combination = tuple[Switch, ...]


class Finding(NamedTuple):
    """The distance of a module from capsjax with some switches: relative errors.

    Without a switch it is the layout as it is; the gradient's error is None where there is none.
    """

    switches: Combination
    forward: float
    gradient: float | None

    @property
    def error(self) -> str:
        """The error of the output, as short as that: `2e-7`."""
        return f"{self.forward:.0e}".replace("e-0", "e-").replace("e+00", "")

    def __str__(self) -> str:
        """The switches in words."""
        return " and ".join(switch.name for switch in self.switches) or "the layout as it is"


class Diagnosis(NamedTuple):
    """What a search came to, and the smallest combinations that agree, the best first.

    `tried` is the number of all that were tried.
    """

    sentence: str
    agreeing: tuple[Finding, ...]
    tried: int


def diagnose(sides: Sides) -> Diagnosis:
    """Searches the smallest change of dialect that makes capsjax compute a module's numbers.

    All switches are tried one at a time, then all pairs, and from the best of these on one more at
    a time, as long as that brings the numbers nearer. An epsilon hardly moves them, so it is tried
    by itself and on top of the best, and in the end a second one. A detached gradient shows in the
    gradient alone, so it may come on top of any.

    Switches are those of a `CapsNet` with dynamic routing, with learned parameters or without.
    """
    if not has_dialects(sides.model):
        return Diagnosis(
            "what differs is searched for in CapsNet with dynamic routing alone", (), 0
        )
    search = _Search(Variants(sides.model, jnp.asarray(sides.images), sides.output_is), sides)
    found = sorted(search.run(), key=lambda finding: (finding.forward, finding.gradient or 0))
    nearest = min(search.errors, key=lambda chosen: (search.errors[chosen], len(chosen)))
    closest, tried = Finding(nearest, search.errors[nearest], None), len(search.errors) - 1
    if found:
        sentence = f"agrees to {'; or '.join(f'{one.error} with {one}' for one in found)}"
        if flags := as_flags(found[0].switches):
            sentence += f": import it with {flags}"
    elif closest.forward <= sides.forward_limit:
        sentence = (
            f"the outputs agree to {closest.error} with {closest}, but none of {tried:,} "
            "combinations of switches makes the gradients agree"
        )
    else:
        steps = (Finding(nearest[:n], search.error(nearest[:n]), None) for n in range(len(nearest)))
        way = "".join(f"{step} is {step.error} away; " for step in steps)
        sentence = (
            f"none of {tried:,} combinations of switches makes them agree; {way}the closest is "
            f"{closest}, with a relative error of {closest.error}"
        )
    return Diagnosis(sentence, tuple(found), tried)


class _Search:
    """A search, and the errors of the outputs of all combinations that were tried."""

    def __init__(self, variants: Variants, sides: Sides) -> None:
        self.variants, self.sides = variants, sides
        self.errors: dict[Combination, float] = {}
        self._gradients_left = MOST_GRADIENTS

    def run(self) -> list[Finding]:
        """The smallest combinations that agree."""
        if found := self._agreeing([()]):
            return found
        shape = self.sides.theirs.shape
        is_square = self.sides.what == "poses" and shape[1] == shape[2]
        known = choices(self.sides.what, is_square=is_square)
        switches = [switch for switch in known if switch.is_new(self.variants.base)]
        epsilons = [switch for switch in switches if switch.is_epsilon]
        plain = [switch for switch in switches if not switch.is_epsilon]
        if found := self._agreeing([(switch,) for switch in switches]):
            return found
        kept: list[Combination] = [(switch,) for switch in plain]
        for size in range(2, MOST_SWITCHES + 1):
            larger = _extended(kept, plain)
            best = sorted(kept, key=self.error)[:KEPT]
            near = [chosen for chosen in best if self.error(chosen) <= NEAR]
            if found := self._agreeing([*larger, *_extended(near, epsilons)]):
                return found
            kept = sorted(larger, key=self.error)[:KEPT]
            if not kept or (size > 2 and self.error(kept[0]) >= self.error(best[0])):
                break
        # Of these an error so near is left that two epsilons may be what is missing.
        near = sorted(self.errors, key=self.error)[:KEPT]
        near = [chosen for chosen in near if self.error(chosen) <= NEAR]
        return self._agreeing(_extended(near, epsilons))

    def error(self, chosen: Combination) -> float:
        """The error of the output with some switches."""
        if chosen not in self.errors:
            output = self.variants.output(self._dialect(chosen), self.sides.what)
            self.errors[chosen] = error_between(output, self.sides.theirs).relative
        return self.errors[chosen]

    def _agreeing(self, combinations: Sequence[Combination]) -> list[Finding]:
        """Those that agree, forwards and backwards; if none does, with detached logits on top."""
        sides = self.sides
        near, nearest = [], min(self.errors.values(), default=math.inf)
        with Progress(len(combinations), "combination of choices") as progress:
            for chosen in combinations:
                if self.error(chosen) <= sides.forward_limit:
                    near.append(chosen)
                nearest = min(nearest, self.error(chosen))
                progress.advance(figures=f"the nearest is {nearest:.0e} away")
        if sides.their_gradient is None:
            return [Finding(chosen, self.errors[chosen], None) for chosen in near]
        for further in ((), (detached(self.variants.base),)):
            found = []
            for chosen in near[: self._gradients_left]:
                self._gradients_left -= 1
                dialect = self._dialect((*chosen, *further))
                gradient = self.variants.gradient(dialect, sides.what, sides.cotangent)
                error = error_between(gradient, sides.their_gradient).relative
                if error <= sides.gradient_limit:
                    found.append(Finding((*chosen, *further), self.errors[chosen], error))
            if found:
                return found
        return []

    def _dialect(self, chosen: Combination) -> Dialect:
        dialect = self.variants.base
        for path, value in (item for switch in chosen for item in switch.changes.items()):
            dialect = replaced(dialect, path, value)
        return dialect


def _extended(combinations: Iterable[Combination], switches: Iterable[Switch]) -> list[Combination]:
    """Each combination with each switch that goes with all of it, no two with the same ones."""
    larger = {
        frozenset((*chosen, switch)): (*chosen, switch)
        for chosen, switch in itertools.product(combinations, switches)
        if all(switch.goes_with(other) for other in chosen)
    }
    return list(larger.values())
