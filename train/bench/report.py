"""What a benchmark found as a report: text for people, JSON for programs, figures; and the text."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from train.bench.start import PARTS
from train.bench.step_parts import NAMES
from train.bench.sweep import POINT, Growth, Row, describe
from train.system.errors import UserError
from train.system.files import write_figure, write_json
from train.system.tables import markdown_lines

_HEADS = dict(
    zip(POINT, ("network", "batch", "dtype", "iterations", "routing", "capsules"), strict=True)
)
_UNITS = {"batch": "image", "iterations": "iteration", "capsules": "primary capsule"}
_COUNTS = {
    "forward": "forward",
    "forward, compiled (a loop's turn once)": "forward_compiled",
    "forward and backward": "training",
    "step, compiled (a loop's turn once)": "training_compiled",
}
RATES = "images/s (slowest to fastest)"
"""The head of a column of `rate_cell`."""

_IN_ROUTING = "in routing"
"""Stands for the votes of a step whose routing makes none that could be timed alone."""


@dataclass
class Report:
    """What was found: Markdown, plain values, and figures by the names of their files."""

    text: str
    values: dict[str, Any]
    figures: dict[str, Figure] = field(default_factory=dict)

    def deliver(self, *, json: Path | None, plot: Path | None) -> None:
        """Prints the text, and writes the values to a file, the figures into a folder, if wanted.

        Raises:
            UserError: if they cannot be written.
        """
        print(self.text)
        try:
            if json is not None:
                write_json(json, self.values)
            if plot is not None:
                plot.mkdir(parents=True, exist_ok=True)
                for name, figure in self.figures.items():
                    write_figure(plot / name, figure)
                    print(plot / name)
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be written ({error.strerror or error})."
            ) from error


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown, of rows whose cells have the heads of their columns as names."""
    heads = list(dict.fromkeys(head for row in rows for head in row))
    cells = ([row.get(head, "") for head in heads] for row in rows)
    return "\n".join(markdown_lines([heads, *cells]))


def rate_cell(row: Row, digits: int = 0) -> str:
    """The `rates` of a row in a cell."""
    rates = (row[name] for name in ("images_per_second", "slowest", "fastest"))
    return "{} ({} to {})".format(*(f"{rate:,.{digits}f}" for rate in rates))


def machine_lines(machine: Row, dataset: str, images: int, synthetic: bool) -> str:
    """What was measured on, and its ceilings."""
    ceilings = machine["ceilings"]
    products = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in ceilings["matrix_flops"].items()
    )
    kind = "synthetic images of the shape of" if synthetic else "images of"
    return (
        f"{_devices(machine)}, {images:,} {kind} {dataset}\n"
        f"ceilings: matrix products {products}; memory {ceilings['memory_bytes'] / 1e9:,.1f} GB/s "
        "read and written"
    )


def _devices(machine: Row) -> str:
    return f"{machine['devices']} x {machine['device_kind']}, JAX {machine['jax']}"


def training_tables(rows: Sequence[Row], machine: Row) -> str:
    """Every table of training: speed, time of the parts, memory, and work."""
    names = _varying(rows)

    def of_rows(title: str, rows: Sequence[Row], cells: Callable[[Row], dict[str, str]]) -> str:
        return f"{title}:\n\n{_table_of(rows, names, cells)}"

    ran = [row for row in rows if row["failure"] is None]
    parts = [row for row in ran if row["parts"]]
    tables = [of_rows("Training", rows, lambda row: _speed(row, machine))]
    if parts:
        title = "Time of the parts, forward and backward, ms a step (share of the matrix products' "
        tables += [
            of_rows(f"{title}ceiling)", parts, lambda row: _times(row, machine)),
            of_rows("Memory of the parts, each a program of its own, MB", parts, _memory),
        ]
    if ran:
        tables.append(of_rows("Work, MFLOP an image", ran, _work))
    return "\n\n".join(tables)


def _varying(rows: Sequence[Row]) -> list[str]:
    """The columns of `POINT` that any row has."""
    return [name for name in POINT if any(row.get(name) is not None for row in rows)]


def _table_of(
    rows: Sequence[Row], names: Sequence[str], cells: Callable[[Row], dict[str, str]]
) -> str:
    """A table of rows, each of which begins with these columns of `POINT`."""
    starts = ({_HEADS[name]: f"{row.get(name) or '-'}" for name in names} for row in rows)
    return table([start | cells(row) for start, row in zip(starts, rows, strict=True)])


def _speed(row: Row, machine: Row) -> dict[str, str]:
    if row["failure"]:
        return {RATES: f"cannot run: {row['failure']}"}
    ceiling = machine["ceilings"]["matrix_flops"][row["dtype"]]
    work = row["flops_per_image"]["training"]
    share = "-" if work is None else share_cell(row["images_per_second"] * work / ceiling, digits=1)
    return {
        RATES: rate_cell(row, 1),
        "ms a step": _milliseconds(row["step_seconds"]),
        "of the ceiling": share,
        "step's memory, MB": _megabytes(row["memory"]["total"]),
        "of it temporary, MB": _megabytes(row["memory"]["temporaries"]),
        "peak in use, MB": f"{row['peak_bytes'] / 1e6:,.0f}",
        "compiling, s": f"{row['compile_seconds']:.1f}",
    }


def _times(row: Row, machine: Row) -> dict[str, str]:
    ceiling = machine["ceilings"]["matrix_flops"][row["dtype"]] / machine["devices"]
    cells = dict.fromkeys(NAMES, _IN_ROUTING)
    for part in row["parts"]:
        work, cell = part["flops"], _milliseconds(part["seconds"])
        share = "" if work is None else f" ({share_cell(work / part['seconds'] / ceiling)})"
        cells[part["name"]] = cell + share
    whole, total = row["step_seconds"], sum(part["seconds"] for part in row["parts"])
    return {
        **cells,
        "sum": _milliseconds(total),
        "whole step": _milliseconds(whole),
        "not covered": share_cell(1 - total / whole),
    }


def share_cell(value: float, digits: int = 0) -> str:
    """A share in percent; what can hardly be is not told as a fact."""
    if value < 0:
        return "<0% (noise?)"
    return ">100% (noise?)" if value > 1 else f"{value:.{digits}%}"


def _memory(row: Row) -> dict[str, str]:
    parts = {part["name"]: _megabytes(part["memory"]["total"]) for part in row["parts"]}
    cells = {name: parts.get(name, _IN_ROUTING) for name in NAMES}
    return {**cells, "whole step": _megabytes(row["memory"]["total"])}


def _work(row: Row) -> dict[str, str]:
    counts = {head: row["flops_per_image"][name] for head, name in _COUNTS.items()}
    return {head: "-" if n is None else f"{n / 1e6:,.2f}" for head, n in counts.items()}


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f}"


def growth_sentence(growth: Growth) -> str:
    """How cost grows, in a sentence."""
    first, last, line = growth.values[0], growth.values[-1], growth.line
    within = f", within {line.off_by:.0%}" if len(growth.values) > 2 else ""  # else it meets both
    return (
        f"{growth.axis} {first:,} to {last:,} ({describe(growth.same)}): a step takes "
        f"{1e3 * line.fixed:.3g} ms and {1e3 * line.each:.3g} ms for each "
        f"{_UNITS[growth.axis]}{within}."
    )


def forward_table(rows: Sequence[Row], dataset: str) -> str:
    """The forward pass, a line for each configuration."""
    kind = next(row["device_kind"] for row in rows if not row["failure"])
    title = f"{kind}, one device, images of the shape of {dataset}"
    return f"Forward pass, {title}:\n\n{_table_of(rows, _varying(rows), _forward)}"


def _forward(row: Row) -> dict[str, str]:
    if row["failure"]:
        return {RATES: f"cannot run: {row['failure']}"}
    return {
        RATES: rate_cell(row),
        "ms a batch": _milliseconds(row["batch_seconds"]),
        "predict, ms": _milliseconds(row["predict_seconds"]),
        "memory, MB": _megabytes(row["memory"]["total"]),
        "peak in use, MB": f"{row['peak_bytes'] / 1e6:,.0f}",
        "compiling, s": f"{row['compile_seconds']:.1f}",
    }


def start_table(rows: Sequence[Row], preset: str) -> str:
    """From a command to its first step: the median of the rounds, with the outer ones."""
    heads = {"start": "to the first line of metrics, s"} | {part: f"{part}, s" for part in PARTS}
    networks = [
        {"model": model, "rounds": [row for row in rows if row["model"] == model]}
        for model in dict.fromkeys(row["model"] for row in rows)
    ]

    def cells(network: Row) -> dict[str, str]:
        columns = {head: [row[name] for row in network["rounds"]] for name, head in heads.items()}
        return {
            head: f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
            for head, seconds in columns.items()
        }

    return (
        f"The start of `fit {preset}`, nothing compiled before, and its parts, each alone:\n\n"
        f"{_table_of(networks, _varying(networks), cells)}"
    )


def feed_table(rows: Sequence[Row], batch_size: int) -> str:
    """The rates of the feeds."""
    cells = [
        {
            "feed": row["feed"],
            "workers": f"{row['workers']}",
            RATES: rate_cell(row),
            "first batch, s": f"{row['first_batch_seconds']:.2f}",
        }
        for row in rows
    ]
    return f"Batches of {batch_size}, brought onto the device:\n\n{table(cells)}"


def prediction_lines(prediction: Row, budget: int) -> str:
    """The largest batch that fits, and how it was found."""
    compiled = [f"{size:,}: {_megabytes(n)} MB" for size, n in prediction["compiled"].items()]
    return (
        f"the largest batch that fits in {_megabytes(budget)} MB a device is "
        f"{prediction['batch_size']:,}\n"
        f"predicted {_megabytes(prediction['predicted_bytes'])} MB, compiled "
        f"{_megabytes(prediction['compiled_bytes'])} MB; a step takes "
        f"{_megabytes(prediction['fixed_bytes'])} MB and "
        f"{prediction['bytes_per_image'] / 1e6:,.3f} MB for each image\n"
        f"compiled: {', '.join(compiled)}"
    )


def scaling_lines(rows: Sequence[Row], machine: Row) -> str:
    """Weak and strong scaling."""
    cells = [
        {
            "scaling": row["kind"],
            "devices": f"{row['devices']:,}",
            "batch": f"{row['batch_size']:,}",
            "ms a step": _milliseconds(row["step_seconds"]),
            "images/s": f"{row['images_per_second']:,.0f}",
            "efficiency": share_cell(row["efficiency"]),
        }
        for row in rows
    ]
    gradient = _megabytes(rows[0]["gradient_bytes"])
    text = f"{_devices(machine)}; gradients of {gradient} MB:\n\n{table(cells)}"
    if machine["platform"] == "cpu" and machine["devices"] > 1:
        text += "\n\nThese devices are virtual: they share the cores of one CPU, and their times "
        text += "mean nothing."
    return text
