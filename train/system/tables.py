"""Tables as plain text and as Markdown."""

from collections.abc import Sequence

from train.system.printing import escaped


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each, one a line, their cells below one another."""
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, of rows of as many cells each, its head first."""
    cells = ([escaped(cell).replace("|", r"\|") for cell in row] for row in rows)
    head, *rest = (f"| {' | '.join(row)} |" for row in cells)
    return [head, "|" + " --- |" * len(rows[0]), *rest]
