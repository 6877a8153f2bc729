"""The benchmark's result as a table for people and as a bar chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

TITLES = {"train": "training step", "forward": "forward pass"}
_COLOURS = ("#c2571a", "#9aa7b8", "#4f6d94", "#2a3f5f", "#7a9e7e")


def table(rows: Sequence[dict[str, Any]], baseline: str) -> str:
    """The rows of `summarise` as a Markdown table.

    Args:
        rows: of `summarise`.
        baseline: the contender that ratios are to.
    """
    lines = [
        f"| batch | work | contender | images/s (slowest to fastest) | times {baseline} | "
        "peak memory | first step |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['batch_size']} | {TITLES[row['work']]} | {row['contender']} |"
        if row["failure"]:
            lines.append(f"{start} cannot run: {row['failure']} | | | |")
            continue
        ratio = (
            "-"
            if row["ratio"] is None
            else f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        )
        lines.append(
            f"{start} {row['images_per_second']:.1f} ({row['slowest']:.1f} to "
            f"{row['fastest']:.1f}) | {ratio} | {row['peak_bytes'] / 1e9:.2f} GB | "
            f"{row['first_step_seconds']:.1f} s |"
        )
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Draws a group of bars for each batch size, with the slowest and the fastest round.

    Args:
        path: the PNG.
        rows: of `summarise`.
        title: what was measured on.
    """
    ran = [row for row in rows if not row["failure"]]
    contenders = list(dict.fromkeys(row["contender"] for row in ran))
    batches = sorted({row["batch_size"] for row in ran})
    width = 0.8 / max(len(contenders), 1)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, (work, name) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        for i, contender in enumerate(contenders):
            chosen = {
                r["batch_size"]: r for r in ran if (r["contender"], r["work"]) == (contender, work)
            }
            there = [(at, chosen[b]) for at, b in enumerate(batches) if b in chosen]
            middles = [r["images_per_second"] for _, r in there]
            below = [r["images_per_second"] - r["slowest"] for _, r in there]
            above = [r["fastest"] - r["images_per_second"] for _, r in there]
            axes.bar(
                [at + (i - (len(contenders) - 1) / 2) * width for at, _ in there],
                middles,
                width * 0.92,
                yerr=[below, above],
                capsize=3,
                label=contender,
                color=_COLOURS[i % len(_COLOURS)],
                error_kw={"elinewidth": 1, "ecolor": "#333333"},
            )
        axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
        axes.set(title=name, ylabel="images a second")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)
