"""Which claims there are, by name."""

import importlib

from train.study.claims.definition import Claim
from train.system.errors import UserError

_NAMES = ("affine", "attacks", "mnist", "overlap", "reconstruction", "viewpoint")
"""Each a file here, which is read when it is asked for."""


def list_claims() -> list[str]:
    """The names that `get_claim` takes."""
    return list(_NAMES)


def get_claim(name: str) -> Claim:
    """A claim by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _NAMES:
        raise UserError(f"unknown claim {name!r}, choose from: {', '.join(_NAMES)}.")
    return importlib.import_module(f"train.study.claims.{name}").CLAIM
