"""Every public name has an example in its docstring, which does what it shows."""

import doctest
import importlib
import inspect
from types import ModuleType

import jax
import pytest
from flax import nnx

import capsjax

ROOMS = ("capsules", "inspection", "layers", "losses", "models", "pretrained", "routing")


def is_shown_elsewhere(member: object) -> bool:
    """Of a constant, a type for annotations, and what something with an example returns."""
    is_result = isinstance(member, type) and issubclass(member, tuple)
    return is_result or not (inspect.isclass(member) or inspect.isfunction(member))


def names_of(module: ModuleType) -> list[str]:
    own = [n for n, m in vars(module).items() if getattr(m, "__module__", "") == module.__name__]
    return [name for name in own if not name.startswith("_")]


def public() -> dict[str, object]:
    found = {name: getattr(capsjax, name) for name in capsjax.__all__}
    known = set(map(id, found.values()))
    for room in ROOMS:
        module = importlib.import_module(f"capsjax.{room}")
        for name in getattr(module, "__all__", None) or names_of(module):
            member = getattr(module, name)
            if id(member) not in known and not is_shown_elsewhere(member):
                found[f"{room}.{name}"] = member
    return found


PUBLIC = public()
NAMES = [
    # A network is made and run, which takes seconds.
    pytest.param(
        name,
        marks=[pytest.mark.slow]
        if isinstance(member, type(nnx.Module)) and name.startswith("models.")
        else [],
    )
    for name, member in PUBLIC.items()
]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_does_what_it_shows(name):
    (example,) = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs={})
    assert example.examples, f"{name} needs an example"
    assert "Examples:" in example.docstring  # of which the reference makes code
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # a reader's
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        told: list[str] = []
        assert runner.run(example, out=told.append).failed == 0, "".join(told)
