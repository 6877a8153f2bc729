"""Which claims there are, by name."""

from train.claims import affine, attacks, mnist, overlap, reconstruction, viewpoint
from train.claims.claim import Claim
from train.errors import UserError

_CLAIMS = {
    "affine": affine.CLAIM,
    "attacks": attacks.CLAIM,
    "mnist": mnist.CLAIM,
    "overlap": overlap.CLAIM,
    "reconstruction": reconstruction.CLAIM,
    "viewpoint": viewpoint.CLAIM,
}


def list_claims() -> list[str]:
    """The names that `get_claim` takes."""
    return sorted(_CLAIMS)


def get_claim(name: str) -> Claim:
    """A claim by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _CLAIMS:
        raise UserError(f"unknown claim {name!r}, choose from: {', '.join(list_claims())}.")
    return _CLAIMS[name]
