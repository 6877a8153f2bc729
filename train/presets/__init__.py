"""Recipes, one a file: the docstring says how to run it, on what, and what comes out.

A recipe says where its values come from: a paper, another recipe, or training images that were set
aside to choose by. Values that were compared with no others are called the recipe's own. Where test
images had been looked at before others were asked, the recipe says so. Results are by the last
checkpoint.

Every file here is a recipe, named by the `preset` of its `CONFIG`: `mnist_small.py` has
`mnist-small`. A new file is a new recipe.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from train.config.fit_config import FitConfig
from train.system.errors import require_known

SMALL = 18
"""Sides of images below this are too short for the kernels of CapsNet, 9 pixels twice."""


@functools.cache
def _files() -> dict[str, str]:
    """Of each recipe its module; none is imported, which may take JAX, which takes seconds."""
    files = (path for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    named = {file: re.search(r'\bpreset="(.+?)"', file.read_text("utf-8")) for file in files}
    return {found[1]: f"{__name__}.{file.stem}" for file, found in named.items() if found}


def list_presets() -> list[str]:
    """The names that `get_preset` takes."""
    return sorted(_files())


def get_preset(name: str) -> FitConfig:
    """The configuration of a recipe; a UserError if there is none of that name."""
    return _recipe(name).CONFIG


def fitting_preset(dataset: str, image_shape: Sequence[int]) -> str:
    """The recipe for a data set: of its name if there is one, else by the size of its images."""
    if dataset in list_presets():
        return dataset
    return "digits" if min(image_shape[:2]) < SMALL else "mnist-small"


def describe_preset(name: str) -> str:
    """The text of a recipe: what it is, how to run it, and what to expect; or a UserError."""
    return inspect.cleandoc(_recipe(name).__doc__ or "")


def _recipe(name: str) -> ModuleType:
    require_known("preset", [name], list_presets())
    return importlib.import_module(_files()[name])
