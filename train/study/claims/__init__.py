"""Claims that papers make of capsule networks: a file each, which holds a `CLAIM`.

A new file is a new claim; `train.study.trial` tries it.
"""

import importlib
import pkgutil

from train.study.trial.definition import Claim
from train.system.errors import UserError


def list_claims() -> list[str]:
    """The names that `get_claim` takes."""
    return [file.name for file in pkgutil.iter_modules(__path__)]


def get_claim(name: str) -> Claim:
    """A claim by its name; a UserError if there is none of that name."""
    if name not in list_claims():
        raise UserError(f"unknown claim {name!r}, choose from: {', '.join(list_claims())}.")
    return importlib.import_module(f"{__name__}.{name}").CLAIM
