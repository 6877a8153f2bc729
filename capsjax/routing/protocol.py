"""What a routing is: a map from the votes of one example to the capsules above."""

from typing import NamedTuple, Protocol

import jax


class Routed(NamedTuple):
    """What a routing returns for one example of `J` output capsules of dimension `D`.

    Attributes:
      pose: `[J, D]`.
      activation: `[J]`.
      coupling: `[I, J]`, the coupling coefficients that the poses were made with.
    """

    pose: jax.Array
    activation: jax.Array
    coupling: jax.Array


class Routing(Protocol):
    """A routing algorithm, written for one example.

    Batches, positions of a convolution, devices and seeds are the library's business: `route` maps
    the call over all leading axes. A routing with parameters is a `flax.nnx.Module` with this same
    call; one without is a frozen dataclass.
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


def route(routing: Routing, votes: jax.Array, activation: jax.Array) -> Routed:
    """Applies a routing to every example of a batch.

    Args:
      routing: the algorithm for one example.
      votes: `[..., I, J, D]`.
      activation: `[..., I]` with the same leading axes.

    Returns:
      `Routed` with the leading axes of `votes` on each of its arrays.

    Raises:
      ValueError: the shapes do not belong together, or the routing returned other shapes than the
        protocol asks for.
    """
    if votes.ndim < 3 or activation.shape != votes.shape[:-2]:
        raise ValueError(
            "a routing takes votes [..., I, J, D] and activations [..., I], "
            f"not {votes.shape} and {activation.shape}"
        )
    *batch, n_in, n_out, dim = votes.shape
    mapped = routing.__call__
    for _ in batch:
        mapped = jax.vmap(mapped)
    routed = mapped(votes, activation)

    expected = Routed((*batch, n_out, dim), (*batch, n_out), (*batch, n_in, n_out))
    for name, array, shape in zip(Routed._fields, routed, expected, strict=True):
        if array.shape != shape:
            raise ValueError(
                f"{type(routing).__name__} returned {name} of shape {array.shape[len(batch) :]}, "
                f"expected {shape[len(batch) :]}"
            )
    return routed
