"""Recipes, one a file: the docstring says how to run it, on what, and what comes out.

No value of a recipe was chosen on validation images yet: they are the papers', or were tried out
before validation images were set aside, on test images where it does not say otherwise. The results
in the docstrings are of that time, too, by the last checkpoint, and with all training images.

Every file here is a recipe, named by the `preset` of its `CONFIG`: `mnist_small.py` has
`mnist-small`. A new file is a new recipe.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from train.config.fit_config import FitConfig
from train.system.errors import require_known

SMALL = 18
"""Sides of images below this are too short for the kernels of CapsNet, 9 pixels twice."""


@functools.cache
def _recipes() -> dict[str, ModuleType]:
    names = (f"{__name__}.{file.name}" for file in pkgutil.iter_modules(__path__))
    return {recipe.CONFIG.preset: recipe for recipe in map(importlib.import_module, names)}


def list_presets() -> list[str]:
    """The names that `get_preset` takes."""
    return sorted(_recipes())


def get_preset(name: str) -> FitConfig:
    """The configuration of a recipe; a UserError if there is none of that name."""
    return _recipe(name).CONFIG


def fitting_preset(dataset: str, image_shape: Sequence[int]) -> str:
    """The recipe for a data set: of its name if there is one, else by the size of its images."""
    if dataset in _recipes():
        return dataset
    return "digits" if min(image_shape[:2]) < SMALL else "mnist-small"


def describe_preset(name: str) -> str:
    """The text of a recipe: what it is, how to run it, and what to expect; or a UserError."""
    return inspect.cleandoc(_recipe(name).__doc__ or "")


def _recipe(name: str) -> ModuleType:
    require_known("preset", [name], list_presets())
    return _recipes()[name]
