"""Old names still work, and say the new ones."""

import importlib

import pytest

import capsjax
from capsjax import _deprecated
from capsjax.routing import Dynamic


@pytest.mark.parametrize("name", sorted(_deprecated.MOVED))
def test_an_old_name_is_found_and_says_the_new_one(name):
    module, new = _deprecated.MOVED[name]
    with pytest.warns(DeprecationWarning, match=rf"capsjax\.{name} is now {module}\.{new}"):
        found = getattr(capsjax, name)
    assert found is vars(importlib.import_module(module))[new]


def test_the_package_has_the_names_that_most_need_and_none_that_is_old():
    assert len(capsjax.__all__) <= 34
    assert all(name in vars(capsjax) for name in capsjax.__all__)
    assert not _deprecated.MOVED.keys() & set(capsjax.__all__)


def test_a_module_has_those_of_its_old_names_that_changed():
    with pytest.warns(DeprecationWarning, match=r"routing\.DynamicRouting is now .*\.Dynamic$"):
        assert capsjax.routing.DynamicRouting is Dynamic
    with pytest.raises(AttributeError, match=r"module 'capsjax\.layers' has no attribute 'EMTra"):
        _ = capsjax.layers.EMTrace
    with pytest.raises(AttributeError, match="module 'capsjax' has no attribute 'Magic'"):
        _ = capsjax.Magic
