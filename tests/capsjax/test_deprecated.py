"""Old names still work, and say the new ones."""

import importlib

import jax.numpy as jnp
import pytest
from flax import nnx

import capsjax
from capsjax import _deprecated
from capsjax.routing import EM, Dynamic, DynamicPrior, Sizes

BUILT = {  # what each class took by position
    "EMRouting": (3,),
    "HeinsenRouting": (5, 3),
    "Heinsen2022Routing": (Sizes(5, 4, 3, 6),),
    "InvertedAttentionRouting": (6,),
    "PriorRouting": (5, 3),
    "SelfAttentionRouting": (5, 3),
    "VariationalBayesRouting": (3, 6),
}


@pytest.mark.parametrize("name", sorted(_deprecated.MOVED))
def test_an_old_name_is_found_and_says_the_new_one(name):
    module, new = _deprecated.MOVED[name]
    with pytest.warns(DeprecationWarning, match=rf"capsjax\.{name} is now .*{module}\.{new}"):
        found = getattr(capsjax, name)
    expected = getattr(importlib.import_module(module), new)
    assert found is expected or name in {*BUILT, "LearnedPrior"}
    assert new in importlib.import_module(module).__dict__


def test_the_package_has_the_names_that_most_need_and_none_that_is_old():
    assert len(capsjax.__all__) <= 30
    assert all(name in vars(capsjax) for name in capsjax.__all__)
    assert not _deprecated.MOVED.keys() & set(capsjax.__all__)


def test_a_module_has_those_of_its_old_names_that_changed():
    with pytest.warns(DeprecationWarning, match=r"routing\.DynamicRouting is now .*\.Dynamic$"):
        assert capsjax.routing.DynamicRouting is Dynamic
    with pytest.raises(AttributeError, match=r"module 'capsjax\.layers' has no attribute 'EMTra"):
        _ = capsjax.layers.EMTrace
    with pytest.raises(AttributeError, match="module 'capsjax' has no attribute 'Magic'"):
        _ = capsjax.Magic


@pytest.mark.parametrize("name", BUILT)
def test_classes_of_built_routings_build_them_and_know_them(name):
    with pytest.warns(DeprecationWarning, match="build"):
        old = getattr(capsjax, name)
    routing = old(*BUILT[name], rngs=nnx.Rngs(0))
    assert isinstance(routing, old)
    assert not isinstance(Dynamic(), old)
    shapes = {value.shape for value in nnx.to_pure_dict(nnx.state(routing)).values()}
    assert shapes <= {(3,), (5, 3), (6,), (1,), (6, 4), (3, 4), (3, 6)}


def test_options_are_given_as_they_were():
    with pytest.warns(DeprecationWarning, match=" is now "):
        em, prior, learned = capsjax.EMRouting, capsjax.PriorRouting, capsjax.LearnedPrior
    made = em(out_capsules=3, options=EM(2), param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert made.settings == EM(2)
    assert made.beta_u.dtype == jnp.bfloat16
    assert prior(5, 3, routing=Dynamic(2), rngs=nnx.Rngs(0)).settings == DynamicPrior(2)
    assert learned(Dynamic(2, detach=True)) == DynamicPrior(2, detach=True)
    assert learned() == DynamicPrior()
