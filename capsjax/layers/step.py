"""What a layer is after one iteration of its routing."""

from typing import Any, NamedTuple

import jax

from capsjax.capsules import Capsules


class Step(NamedTuple):
    """A layer after one iteration of a `StepwiseRouting`.

    Attributes:
        capsules: what the layer would return if this iteration were the last.
        coupling: the coupling coefficients they were made with.
        state: what the next iteration starts from.
    """

    capsules: Capsules
    coupling: jax.Array
    state: Any
