"""Claims that papers make of capsule networks: a file each, which holds a `CLAIM`.

A new file is a new claim; `train.study.trial` tries it.
"""

import importlib
import pkgutil

from train.study.trial.definition import Claim
from train.system.errors import require_known


def list_claims() -> list[str]:
    """The names that `get_claim` takes."""
    return [file.name for file in pkgutil.iter_modules(__path__)]


def get_claim(name: str) -> Claim:
    """A claim by its name; a UserError if there is none of that name."""
    require_known("claim", [name], list_claims())
    return importlib.import_module(f"{__name__}.{name}").CLAIM
