"""What `python -m parity bench` measures, as a table for people and as a bar chart."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from parity.bench.side_by_side import make_work, measure, summarise
from train.bench.report import RATES, Report, rate_cell, table
from train.bench.timing import Rounds
from train.system.machine import describe_machine

Row = Mapping[str, Any]

TITLES = {"train": "training step", "forward": "forward pass"}
_COLOURS = ("#c2571a", "#9aa7b8", "#4f6d94", "#2a3f5f", "#7a9e7e")


def bench(
    contenders: Sequence[str],
    batch_sizes: Sequence[int],
    *,
    baseline: str,
    dtype: str,
    iterations: int,
    rounds: Rounds,
    cores: int,
    chart: str = "bench.png",
) -> Report:
    """Measures contenders side by side, on so many cores each; ratios are to the baseline.

    The report's only figure is called `chart`.
    """
    works = [make_work(size, dtype=dtype, iterations=iterations) for size in batch_sizes]
    results = [measure(contenders, work, rounds=rounds, cores=cores) for work in works]
    rows = summarise([measured for of_work in results for measured in of_work], baseline)
    machine = {"cores": cores, **describe_machine(("jax", "jaxlib", "flax", "torch"))}
    devices = sorted({row["device"] for row in rows if not row["failure"]}) or ["no device"]
    title = f"CapsNet, {dtype}, {cores} cores, {', '.join(devices)}"
    values = {"machine": machine, "dtype": dtype, "rows": rows}
    text = table([cells(row, baseline) for row in rows])
    return Report(text, values, {chart: draw(rows, title)})


def cells(row: Row, baseline: str) -> dict[str, str]:
    """A row of `summarise` as one of a table."""
    start = {"batch": f"{row['batch_size']}", "work": TITLES[row["work"]]}
    start["contender"] = row["contender"]
    if row["failure"]:
        return start | {RATES: f"cannot run: {row['failure']}"}
    ratio = "-" if row["ratio"] is None else "{ratio:.2f} ({ratio_low:.2f} to {ratio_high:.2f})"
    return {
        **start,
        RATES: rate_cell(row, 1),
        f"times {baseline}": ratio.format(**row),
        "peak memory": f"{row['peak_bytes'] / 1e9:.2f} GB",
        "first step": f"{row['first_step_seconds']:.1f} s",
    }


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Draws the rows of `summarise`: a group of bars for each batch size, with the outer rounds."""
    ran = [row for row in rows if not row["failure"]]
    contenders = list(dict.fromkeys(row["contender"] for row in ran))
    batches = sorted({row["batch_size"] for row in ran})
    width = 0.8 / max(len(contenders), 1)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, (work, name) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        for i, contender in enumerate(contenders):
            chosen = [row for row in ran if (row["contender"], row["work"]) == (contender, work)]
            shift = (i - (len(contenders) - 1) / 2) * width
            axes.bar(
                [batches.index(row["batch_size"]) + shift for row in chosen],
                [row["images_per_second"] for row in chosen],
                width * 0.92,
                yerr=[
                    [row["images_per_second"] - row["slowest"] for row in chosen],
                    [row["fastest"] - row["images_per_second"] for row in chosen],
                ],
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
    return figure
