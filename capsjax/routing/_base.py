"""The contract of all routings: a map from the votes of one example to the capsules above."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import accumulation_dtype, norm
from capsjax.routing._inputs import RoutingInputs, Softmax, softmax_over_out

Index = int | jax.Array
"""The number of an iteration."""

Parameters = dict[str, tuple[tuple[int, ...], float | nnx.Initializer]]
"""By name the shape of a parameter, and what it starts from: a number everywhere, or drawn ones."""

OFFERED = ("pose", "softmax", "mask", "key", "vote_sum")
"""What a routing may need beside votes and activations, see `Routing`."""


class Routed(NamedTuple):
    """What a routing returns for one example of `J` output capsules of dimension `D`.

    Attributes:
        pose: `[J, D]`.
        activation: `[J]`.
        coupling: `[I, J]`, the coupling coefficients that the poses were made with.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.Dynamic(), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    pose: jax.Array
    activation: jax.Array
    coupling: jax.Array


class Routing(Protocol):
    """A routing algorithm, written for one example.

    Batches, positions of a convolution, devices and seeds are the library's business: `route` maps
    the call over all leading axes. A routing with parameters is a `flax.nnx.Module` with this same
    call; one without is a frozen dataclass, or a function. One that iterates, as all of the
    library's do, is an `IterativeRouting`, which has the call.

    A routing that needs more names it, keyword-only, in the signature of its call (what a
    `functools.partial` binds is a default); an `IterativeRouting` in `needs`:

    - `pose`: `[I, K]`, the poses of the input capsules themselves;
    - `mask`: `[I]`, whether each input capsule is there; None where all are. What is not comes with
      votes, activation and pose of zero, and `softmax` gives it nothing, so that most routings need
      not look. Those that share out over the *input* capsules, or by a softmax of their own, do; a
      function that names neither `mask` nor `softmax` is not called with a mask;
    - `key`: a random key, another one for each example; None where nothing is to be drawn;
    - `vote_sum`: `[J, D]`, the sum of the votes over the input capsules, which a layer makes of
      poses in one product; None where the softmax is over more than the output capsules in sight,
      or nobody made it. A routing that begins with equal shares need not go over the votes for it;
    - `softmax`: a function of logits `[I, J]`. In a convolution an input capsule votes for output
      capsules at several positions, of which a routing sees one; this softmax is over all of them.
      It needs a default, `softmax_over_out`, for everywhere else.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> def sums(votes, activation):
        ...     pose = capsjax.squash(votes.sum(axis=0))
        ...     return capsjax.Routed(pose, capsjax.norm(pose), jnp.ones(votes.shape[:2]))
        >>> capsjax.route(sums, jnp.ones((2, 6, 3, 16)), jnp.ones((2, 6))).pose.shape
        (2, 3, 16)
    """

    def __call__(self, votes: jax.Array, activation: jax.Array) -> Routed:
        """Routes one example.

        Args:
            votes: `[I, J, D]`, what each of `I` input capsules predicts for each of `J` output
                capsules.
            activation: `[I]`, the activations of the input capsules.

        Returns:
            The output capsules and their coupling, in `accumulation_dtype(votes.dtype)`.
        """
        ...


class Sizes(NamedTuple):
    """What a routing connects, as far as its parameters depend on it.

    Attributes:
        in_capsules: number of capsules below that an output capsule sees, `I`.
        in_dim: dimension of their poses, `K`.
        out_capsules: number of capsules above, in a convolution at one position, `J`.
        out_dim: dimension of their poses, `D`.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = capsjax.Sizes(in_capsules=6, in_dim=8, out_capsules=3, out_dim=16)
        >>> routing = capsjax.routing.EM().build(sizes, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
        >>> routing.beta_a.shape
        (3,)
    """

    in_capsules: int
    in_dim: int
    out_capsules: int
    out_dim: int


@runtime_checkable
class UnsizedRouting(Protocol):
    """The settings of a routing with parameters, before it is known how many capsules it connects.

    They stand where a routing is asked for, and the layer that they are given to, which knows the
    sizes, builds the routing.

    Examples:
        >>> import capsjax
        >>> isinstance(capsjax.routing.EM(), capsjax.routing.UnsizedRouting)
        True
    """

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> Routing:
        """Makes the routing.

        Args:
            sizes: what it connects.
            param_dtype: dtype of the parameters.
            rngs: source of the initial values.
        """
        ...


class Before(NamedTuple):
    """What an iteration of a routing leaves for the next: its state, and its number."""

    state: Any
    number: jax.Array


class IterativeRouting:
    """A routing in iterations: how it starts, how one follows from the last, what one comes to.

    A subclass is a frozen dataclass. Its fields that are annotated `bool`, a `Literal` or
    `DTypeLike` are checked when it is made, and `iterations`, whatever its annotation. It has
    `iterations`, `first`, `again` and `outcome`; the call, `trace` and single iterations of a layer
    are made of these. What an iteration computes, its state, is a NamedTuple in the symbols of the
    paper, whose arrays are in `accumulation_dtype` of the votes' dtype. In a trace of `R`
    iterations each has that axis in front. `I` input capsules of dimension `K` are routed to `J` of
    dimension `D`. One with parameters is a `LearnedRouting`.

    Attributes:
        iterations: how many there are, at least 1.
        needs: what it reads of `RoutingInputs` beside votes, activation and mask, of `OFFERED`.

    Examples:
        >>> import dataclasses, jax
        >>> from typing import NamedTuple
        >>> import capsjax, jax.numpy as jnp
        >>> class State(NamedTuple):
        ...     c: jax.Array
        ...     v: jax.Array
        >>> @dataclasses.dataclass(frozen=True)
        ... class Agree(capsjax.routing.IterativeRouting):
        ...     iterations: int = 3
        ...     def first(self, inputs):
        ...         return self.made(jnp.zeros(inputs.votes.shape[:2]), inputs.votes)
        ...     def again(self, inputs, state, index):
        ...         return self.made(jnp.einsum('ijd,jd->ij', inputs.votes, state.v), inputs.votes)
        ...     def made(self, logits, votes):
        ...         c = jax.nn.softmax(logits)
        ...         return State(c, capsjax.squash(jnp.einsum('ij,ijd->jd', c, votes)))
        >>> capsjax.trace(Agree(), jnp.ones((2, 6, 3, 16)), jnp.ones((2, 6))).v.shape
        (2, 3, 3, 16)
    """

    iterations: int
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _checks.check_fields(self)
        _checks.positive_integer(f"{type(self).__name__}: iterations", self.iterations)

    def prepare(self, inputs: RoutingInputs) -> Any:
        """What all iterations have in common, computed once: by default the inputs as they are."""
        return inputs

    def first(self, inputs: Any) -> Any:
        """The state after the first iteration, of what `prepare` returned."""
        raise NotImplementedError

    def again(self, inputs: Any, state: Any, index: Index) -> Any:
        """The state after the iteration of number `index`, from 1 on, of the state before it."""
        raise NotImplementedError

    def outcome(self, state: Any) -> Routed:
        """What the routing returns if a state is its last.

        By default what vector capsules come to, output capsules `v` and coupling coefficients `c`:
        their activations are their lengths.
        """
        return Routed(pose=state.v, activation=norm(state.v), coupling=state.c)

    def __call__(
        self,
        votes: jax.Array,
        activation: jax.Array,
        *,
        pose: jax.Array | None = None,
        softmax: Softmax = softmax_over_out,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
        vote_sum: jax.Array | None = None,
    ) -> Routed:
        """Routes one example.

        Args:
            votes: `[I, J, D]`.
            activation: `[I]`.
            pose: `[I, K]`, for a routing that needs it.
            softmax: over the output capsules.
            mask: `[I]` booleans: an input capsule that is not there has no coupling and no part in
                anything, as if there were one less; None where all are there.
            key: a random key, for a routing that needs it; None where nothing is to be drawn.
            vote_sum: `[J, D]`, the sum of the votes where that is known, see `Routing`.
        """
        inputs = self._prepared(
            RoutingInputs(votes, activation, pose, softmax, None, mask, key, vote_sum)
        )
        # No `lax.scan`: each iteration stands alone. What is the same for all examples of a batch
        # in the first, such as coupling that starts uniform, stays so, on a mesh of devices, too.
        steps = self._steps
        state = steps.first(inputs)
        for index in range(1, self.iterations):
            state = steps.again(inputs, state, jnp.asarray(index, jnp.int32))
        return steps.outcome(state)

    def trace(
        self,
        votes: jax.Array,
        activation: jax.Array,
        *,
        pose: jax.Array | None = None,
        softmax: Softmax = softmax_over_out,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
        vote_sum: jax.Array | None = None,
    ) -> Any:
        """Routes one example and keeps the states of all `R` iterations, arrays `[R, ...]`."""
        inputs = self._prepared(
            RoutingInputs(votes, activation, pose, softmax, None, mask, key, vote_sum)
        )
        states = [self.first(inputs)]
        for index in range(1, self.iterations):
            states.append(self.again(inputs, states[-1], jnp.asarray(index, jnp.int32)))
        return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)

    def iterate(
        self, inputs: RoutingInputs, before: "Before | None" = None
    ) -> tuple[Routed, "Before"]:
        """Takes one iteration of one example, whose votes may be others than in the one before.

        Args:
            inputs: as they are by now.
            before: the second of what the iteration before returned; None for the first one.

        Returns:
            What the routing returns if this iteration is the last; and what the next one takes.
        """
        prepared = self._prepared(inputs)
        if before is None:
            state, index = self.first(prepared), jnp.zeros((), jnp.int32)
        else:
            index = before.number + 1
            state = self.again(prepared, before.state, index)
        return self.outcome(state), Before(state, index)

    def _prepared(self, inputs: RoutingInputs) -> Any:
        needed(self, inputs)
        return self.prepare(inputs.masked())

    @property
    def _steps(self) -> "IterativeRouting":
        """What has the steps that a call is made of."""
        return self


class LearnedRouting(IterativeRouting):
    """A routing with parameters: its settings, of which `build` makes what routes.

    Its `prepare`, `first` and `again` find the parameters in the inputs.

    Examples:
        >>> import capsjax
        >>> isinstance(capsjax.routing.EM(), capsjax.routing.LearnedRouting)
        True
        >>> sizes = capsjax.Sizes(in_capsules=6, in_dim=8, out_capsules=3, out_dim=16)
        >>> sorted(capsjax.routing.EM().parameters(sizes))
        ['beta_a', 'beta_u']
    """

    needs: tuple[str, ...] = ("softmax",)

    def parameters(self, sizes: Sizes) -> Parameters:
        """The parameters for some sizes.

        Raises:
            ValueError: the settings do not go with these sizes.
        """
        raise NotImplementedError

    def logits(self, pose: jax.Array, parameters: dict[str, jax.Array]) -> jax.Array | None:
        """What class probabilities are made of, `[J]`, of output poses `[J, D]`; None for none."""
        return None

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> "BuiltRouting":
        """Makes the routing, see `UnsizedRouting`."""
        return BuiltRouting(self, sizes, param_dtype=param_dtype, rngs=rngs)


class BuiltRouting(IterativeRouting, nnx.Module):
    """A `LearnedRouting` with its parameters, which are attributes of the names that it gives them.

    Args:
        settings: what is computed.
        sizes: what it connects.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.
    """

    def __init__(
        self, settings: Any, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.settings, self.sizes = settings, sizes
        for name, (shape, start) in settings.parameters(sizes).items():
            if callable(start):
                value = start(rngs.params(), shape, param_dtype)
            else:
                value = jnp.full(shape, start, param_dtype)
            setattr(self, name, nnx.Param(value))

    @property
    def iterations(self) -> int:  # type: ignore[override]
        """As the settings have it."""
        return self.settings.iterations

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """As the settings have it."""
        return self.settings.needs

    # Not `prepare`, and not the steps below: `nnx.tabulate` lists what public methods of a module
    # are called with and return, and knows arrays alone.
    @property
    def _steps(self) -> IterativeRouting:
        return self.settings

    def _prepared(self, inputs: RoutingInputs) -> Any:
        """What the settings prepare, parameters and all; a ValueError if the inputs do not fit."""
        needed(self, inputs)
        made = self._shapes(self.sizes)
        n_in, n_out, dim = inputs.votes.shape
        in_dim = self.sizes.in_dim if inputs.pose is None else inputs.pose.shape[-1]
        found = Sizes(n_in, in_dim, n_out, dim)._asdict()
        wrong = [n for n in found if self._shapes(self.sizes._replace(**{n: found[n]})) != made]
        if wrong:
            expected = ", ".join(f"{name}={getattr(self.sizes, name)}" for name in wrong)
            raise ValueError(
                f"{name_of(self)} for {expected} cannot route votes of shape {inputs.votes.shape}"
                + ("" if inputs.pose is None else f" of poses of shape {inputs.pose.shape}")
            )
        parameters = self.values(accumulation_dtype(inputs.votes.dtype))
        return self.settings.prepare(inputs.masked()._replace(parameters=parameters))

    def first(self, inputs: Any) -> Any:
        return self.settings.first(inputs)

    def again(self, inputs: Any, state: Any, index: Index) -> Any:
        return self.settings.again(inputs, state, index)

    def outcome(self, state: Any) -> Routed:
        return self.settings.outcome(state)

    def logits(self, pose: jax.Array) -> jax.Array | None:
        """What class probabilities are made of, `[J]`, of output poses `[J, D]`; None for none.

        Raises:
            ValueError: the routing has them, but not with these settings.
        """
        return self.settings.logits(pose, self.values(pose.dtype))

    def values(self, dtype: DTypeLike) -> dict[str, jax.Array]:
        """The parameters in a dtype, by name."""
        return {name: getattr(self, name)[...].astype(dtype) for name in self._shapes(self.sizes)}

    def _shapes(self, sizes: Sizes) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, (shape, _) in self.settings.parameters(sizes).items()}


def normalized(x: jax.Array, epsilon: float) -> jax.Array:
    """`[J, D]` with the mean 0 and, but for the epsilon, the variance 1 in each capsule.

    Of a capsule of one component nothing would be left: it stays.
    """
    if x.shape[-1] == 1:
        return x
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon)


def needs_of(routing: Callable[..., Any]) -> tuple[str, ...]:
    """What a routing needs beside votes and activations, of `OFFERED`.

    Raises:
        ValueError: it is none, needs something that is not offered or by position, or is still to
            be built.
    """
    if not isinstance(routing, type) and isinstance(routing, UnsizedRouting):
        raise ValueError(
            f"{name_of(routing)} has parameters: give it to a layer, or route with what "
            "its build(sizes, param_dtype=..., rngs=...) returns"
        )
    if isinstance(routing, type) or not callable(routing):
        raise ValueError(
            f"routing must be an object such as create_routing('dynamic'), not {routing!r}"
        )
    if isinstance(routing, IterativeRouting):
        named, required = (*routing.needs, "mask"), routing.needs
    else:
        parameters = inspect.signature(routing).parameters.values()
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        by_position = [p for p in parameters if p.kind in positional]
        for place, p in enumerate(by_position):
            if p.name in OFFERED or (place > 1 and p.default is p.empty):
                raise ValueError(
                    f"{name_of(routing)} takes {p.name!r} by position: what a routing needs "
                    f"beside votes and activations is keyword-only, after a *: {', '.join(OFFERED)}"
                )
        by_name = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        named = tuple(p.name for p in by_name)
        required = tuple(p.name for p in by_name if p.default is p.empty)
    for name in required:
        if name not in OFFERED:
            raise ValueError(
                f"{name_of(routing)} needs {name!r}; a routing may need: {', '.join(OFFERED)}"
            )
    return tuple(name for name in OFFERED if name in named)


def needed(routing: Callable[..., Any], inputs: RoutingInputs) -> dict[str, Any]:
    """What `needs_of` names, of some inputs.

    A ValueError if it is the pose and there is none or of other capsules, or if there is a mask
    that it does not know.
    """
    values = {name: getattr(inputs, name) for name in needs_of(routing)}
    if "pose" in values and inputs.pose is None:
        raise ValueError(f"{name_of(routing)} needs the poses of the input capsules")
    if "pose" in values and inputs.pose.shape[:-1] != inputs.votes.shape[:1]:
        raise ValueError(
            f"{name_of(routing)} takes poses [I, K] of each of the {inputs.votes.shape[0]} input "
            f"capsules that vote, not {list(inputs.pose.shape)}"
        )
    if inputs.mask is not None and not values.keys() & {"mask", "softmax"}:
        raise ValueError(
            f"{name_of(routing)} knows no mask: name mask, or the softmax that it shares out by, "
            "as a keyword-only argument of its call"
        )
    return values


def name_of(routing: Any) -> str:
    """What to call a routing in a message."""
    if isinstance(routing, functools.partial):
        return name_of(routing.func)
    if isinstance(routing, BuiltRouting):
        return name_of(routing.settings)
    return getattr(routing, "__name__", type(routing).__name__)
