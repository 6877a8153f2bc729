"""Which contenders there are for a network."""

from collections.abc import Sequence

from parity.bench.contenders import CONTENDERS
from train.system.errors import UserError

DEFAULT = ("capsjax", "torch-reference", "torch-fast")


def chosen_contenders(model: str, asked: Sequence[str] | None) -> list[str]:
    """Those that were asked for, or of `DEFAULT` those that there are.

    Raises:
        UserError: one that was asked for does not exist.
    """
    from parity.bench.fast import FAST

    there = [name for name in CONTENDERS if name != "torch-fast" or model in FAST]
    if asked is None:
        return [name for name in DEFAULT if name in there]
    for name in asked:
        if name not in there:
            raise UserError(
                f"{model} has no {name}, for its plain reference is as fast as PyTorch is: choose "
                f"from {', '.join(there)}."
            )
    return list(asked)
