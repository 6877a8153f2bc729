"""What type checkers know of networks: `make check` reads this file, too."""

from typing import assert_type

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import capsjax
from capsjax import CapsNetOutput
from capsjax.layers import RoutedCapsules
from capsjax.models.output import CapsuleNetwork


def test_networks_and_layers_know_what_they_return() -> None:
    model = capsjax.create_model("capsnet", pretrained="digits")
    assert_type(model, CapsuleNetwork)
    output = model(jnp.zeros((2, 8, 8, 1)))
    assert_type(output, CapsNetOutput)
    assert_type(output.lengths, jax.Array)
    assert output.capsules is not None
    layer = capsjax.DenseCaps(10, 16, 3, 4, routing="uniform", rngs=nnx.Rngs(0))
    above = layer(output.capsules)
    assert_type(above, RoutedCapsules)
    assert_type(above.capsules.pose, jax.Array)
    assert capsjax.load("capsnet/digits").model(jnp.zeros((2, 8, 8, 1))).lengths.shape == (2, 10)


def test_a_wrong_name_of_a_routing_is_an_error_of_types() -> None:
    # The comment is told to be superfluous where it is none.
    with pytest.raises(ValueError, match="'dynamc'"):
        capsjax.DenseCaps(2, 4, 3, 4, routing="dynamc", rngs=nnx.Rngs(0))  # type: ignore[arg-type]
