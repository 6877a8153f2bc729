"""The metrics of classes in a few lines of text: their means, and classes of them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from train.system.tables import aligned

MOST_ROWS = 20
"""Classes of which each has a row; of more of them, the worst have."""
WORST = 5
HEAD = ("class", "precision", "recall", "F1", "support")

NOT_FINITE = (
    "note: the loss on these images is not finite, since the outputs of the network are not: its "
    "accuracy says nothing"
)
"""What is told beside a result whose loss is none."""


def in_words(result: Mapping[str, Any]) -> str:
    """Means over classes, and a table of them, of a result of `evaluate`.

    A class that nothing is known of in some respect has a dash there.
    """
    shares = {
        "balanced accuracy": result["balanced_accuracy"],
        "precision": result["macro_precision"],
        "F1": result["macro_f1"],
    }
    of_top = {
        f"top-{found[1]} accuracy": value
        for name, value in result.items()
        if (found := re.fullmatch(r"top_(\d+)_accuracy", name))
    }
    lines = [
        ", ".join(f"{name} {_percent(share)}" for name, share in shares.items())
        + " (means over classes)",
        *(f"{name} {_percent(share)}" for name, share in of_top.items()),
    ]
    rows = result["classes"]
    if len(rows) > MOST_ROWS:
        rows = worst(rows)[:WORST]
        lines.append(f"the {len(rows)} of {len(result['classes']):,} classes with the lowest F1:")
    return "\n".join([*lines, aligned([HEAD, *map(_cells, rows)])])


def worst(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The classes that have an F1, the lowest first."""
    return sorted((row for row in rows if row["f1"] is not None), key=lambda row: row["f1"])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (_percent(row[name]) for name in ("precision", "recall", "f1"))
    return (row["class"], *shares, f"{row['support']:,}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
