"""What a network was called with, and its variables, apart from what is drawn at random."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import CapsNet, create_model, list_models, model_options
from capsjax.models import describe_model, options_of, tensors_of
from capsjax.models._stored import filled
from tests.capsjax.models import family
from tests.capsjax.models.family import SMALL


class Dropping(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.ones(3))
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.drop(x * self.kernel)


def test_random_numbers_are_in_no_file_and_start_as_they_do():
    assert tensors_of(Dropping()).keys() == {"kernel"}
    model = filled(Dropping, {"kernel": jnp.full(3, 2.0)})
    assert model(jnp.ones(3)).tolist() == [2, 2, 2]
    model.train()
    expected = Dropping()
    expected.train()
    assert (model(jnp.ones(3)) == 2 * expected(jnp.ones(3))).all()


class Changed(CapsNet):
    """A network of somebody's own."""

    def __init__(self, *, width, rngs):
        super().__init__(**{**SMALL["capsnet"], "conv_features": width}, rngs=rngs)


def test_a_network_of_ones_own_is_not_taken_for_what_it_is_made_of():
    model = nnx.eval_shape(lambda: Changed(width=3, rngs=nnx.Rngs(0)))
    assert json.loads(model.arguments) == {"width": 3}
    with pytest.raises(ValueError, match="Changed is none of the networks of"):
        options_of(model)


def test_an_argument_of_a_network_of_ones_own_may_be_an_array():
    class Weighted(CapsNet):
        def __init__(self, *, weights):
            super().__init__(**SMALL["capsnet"], rngs=nnx.Rngs(0))

    model = nnx.eval_shape(lambda: Weighted(weights=np.ones(3)))
    assert json.loads(model.arguments) == {"weights": {"code": "ndarray"}}


@pytest.mark.parametrize("name", list_models())
def test_where_and_how_a_network_is_computed_is_no_change_of_it(name):
    options = {"batch_axis": "data"} if "batch_axis" in model_options(name) else {}
    model = family.shapes(name, **options)
    expected = describe_model(model)
    model.eval()
    model.draw_from(nnx.Rngs(routing=0, dropout=0))
    model.note = "what nobody asked for"
    for _, module in nnx.iter_modules(model):
        for attribute, value in (("implementation", "xla"), ("remat", True)):
            if hasattr(module, attribute):
                setattr(module, attribute, value)
    assert describe_model(nnx.merge(*nnx.split(model))) == expected


def test_a_network_of_float64_is_described_where_x64_is_off_again():
    with jax.enable_x64(True):
        model = family.shapes("capsnet", dtype="float64", param_dtype="float64")
    assert describe_model(model)[1]["dtype"] == "float64"


def test_what_a_network_was_made_with_stays_through_the_transformations_of_flax():
    def make():
        return create_model("capsnet", rngs=nnx.Rngs(0), **SMALL["capsnet"], remat=True)

    model = nnx.eval_shape(make)
    merged = nnx.merge(*nnx.split(model))
    assert options_of(merged) == options_of(model)
    assert options_of(model)[1]["remat"] is True
    assert hash(nnx.graphdef(model)) == hash(nnx.graphdef(nnx.eval_shape(make)))
    assert jax.tree.leaves(model) == jax.tree.leaves(merged)
