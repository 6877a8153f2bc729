"""What a benchmark found as a report: text for people, JSON for programs, figures; and the text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from train.bench.memory import Prediction
from train.bench.parts import NAMES
from train.bench.sweep import POINT, Growth, Row, describe
from train.system.errors import UserError
from train.system.files import write_figure, write_json
from train.system.tables import markdown_lines

Columns = dict[str, Callable[[Row], str]]
"""Heads of a table, and what makes the cells below them of a row."""

_HEADS = {"batch_size": "batch", "implementation": "routing", "primary_capsules": "capsules"}
_UNITS = {"batch": "image", "iterations": "iteration", "capsules": "primary capsule"}


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


def require_folder(file: Path | None) -> None:
    """Refuses a file whose folder is not there, before anything is measured.

    Raises:
        UserError: if there is none.
    """
    if file is not None and not file.absolute().parent.is_dir():
        raise UserError(f"{file} cannot be written: {file.parent} is no folder.")


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
    ran = [row for row in rows if row["failure"] is None]
    parts = [row for row in ran if row["parts"]]
    tables = {"": _table(rows, _speed_columns(machine))}
    if parts:
        tables |= {
            "Time of the parts, forward and backward, ms a step (share of the matrix products' "
            "ceiling):\n\n": _table(parts, _time_columns(machine)),
            "Memory of the parts, each a program of its own, MB:\n\n": _table(
                parts, _of_parts(_planned) | {"whole step": _planned}
            ),
        }
    if ran:
        tables["Work, MFLOP an image:\n\n"] = _table(ran, _WORK_COLUMNS)
    return "\n\n".join(head + table for head, table in tables.items())


def _speed_columns(machine: Row) -> Columns:
    return {
        "images/s (slowest to fastest)": lambda row: rate_cell(row, 1),
        "ms a step": lambda row: _milliseconds(row["step_seconds"]),
        "of the ceiling": lambda row: share_of_ceiling(row, machine),
        "step's memory, MB": _planned,
        "peak in use, MB": lambda row: f"{row['peak_bytes'] / 1e6:,.0f}",
        "compiling, s": lambda row: f"{row['compile_seconds']:.1f}",
    }


def _time_columns(machine: Row) -> Columns:
    def cell(part: Row) -> str:
        if part["flops"] is None:
            return _milliseconds(part["seconds"])
        ceiling = machine["ceilings"]["matrix_flops"][part["dtype"]] / machine["devices"]
        share = part["flops"] / part["seconds"] / ceiling
        return f"{_milliseconds(part['seconds'])} ({share:.0%})"

    def total(row: Row) -> float:
        return sum(part["seconds"] for part in row["parts"])

    return {
        **_of_parts(cell),
        "sum": lambda row: _milliseconds(total(row)),
        "whole step": lambda row: _milliseconds(row["step_seconds"]),
        "not covered": lambda row: f"{1 - total(row) / row['step_seconds']:.0%}",
    }


def _of_parts(cell: Callable[[Row], str]) -> Columns:
    """A column for each part, also for votes that the routing of a row has no part for."""

    def of_part(name: str) -> Callable[[Row], str]:
        def find(row: Row) -> str:
            found = [part for part in row["parts"] if part["name"] == name]
            return cell({**row, **found[0]}) if found else "in routing"

        return find

    return {name: of_part(name) for name in NAMES}


def _work(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        count = row["flops_per_image"][name]
        return "-" if count is None else f"{count / 1e6:,.2f}"

    return cell


_WORK_COLUMNS: Columns = {
    "forward": _work("forward"),
    "forward, compiled": _work("forward_compiled"),
    "forward and backward": _work("training"),
    "step, compiled": _work("training_compiled"),
}


def _table(rows: Sequence[Row], columns: Columns) -> str:
    """The rows as Markdown: what tells them apart, then the cells of the columns."""
    names = [name for name in POINT if any(row.get(name) is not None for row in rows)]
    lines = [[*(_HEADS.get(name, name) for name in names), *columns]]
    for row in rows:
        start = ["-" if row.get(name) is None else f"{row[name]}" for name in names]
        failed = [f"cannot run: {row['failure']}", *[""] * (len(columns) - 1)]
        cells = failed if row["failure"] else [cell(row) for cell in columns.values()]
        lines.append([*start, *cells])
    return "\n".join(markdown_lines(lines))


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f}"


def _planned(row: Row) -> str:
    return _megabytes(row["memory"]["total"])


def rate_cell(row: Row, digits: int = 0) -> str:
    """The `rates` of a row in a cell."""
    rates = (row[name] for name in ("images_per_second", "slowest", "fastest"))
    return "{} ({} to {})".format(*(f"{rate:,.{digits}f}" for rate in rates))


def share_of_ceiling(row: Row, machine: Row) -> str:
    """The work done in a second, over the rate of the matrix products, if it is known."""
    work = row["flops_per_image"]["training"]
    ceiling = machine["ceilings"]["matrix_flops"][row["dtype"]]
    return "-" if work is None else f"{row['images_per_second'] * work / ceiling:.1%}"


def growth_sentence(growth: Growth) -> str:
    """How cost grows, in a sentence."""
    first, last, line = growth.values[0], growth.values[-1], growth.line
    return (
        f"{growth.axis} {first:,} to {last:,} ({describe(growth.same)}): a step takes "
        f"{1e3 * line.fixed:.3g} ms and {1e3 * line.each:.3g} ms for each "
        f"{_UNITS[growth.axis]}, within {line.off_by:.0%}."
    )


def feed_table(rows: Sequence[Row], batch_size: int) -> str:
    """The rates of the feeds."""
    cells = [["feed", "workers", "images/s (slowest to fastest)", "first batch, s"]]
    for row in rows:
        first = f"{row['first_batch_seconds']:.2f}"
        cells.append([row["feed"], f"{row['workers']}", rate_cell(row), first])
    head = f"Batches of {batch_size}, brought onto the device:"
    return "\n".join([head, "", *markdown_lines(cells)])


def prediction_lines(prediction: Prediction, budget: int) -> str:
    """The largest batch that fits, and how it was found."""
    compiled = [f"{size:,}: {_megabytes(n)} MB" for size, n in prediction.compiled.items()]
    return (
        f"the largest batch that fits in {_megabytes(budget)} MB a device is "
        f"{prediction.batch_size:,}\n"
        f"predicted {_megabytes(prediction.predicted_bytes)} MB, compiled "
        f"{_megabytes(prediction.compiled_bytes)} MB; a step takes "
        f"{_megabytes(prediction.fixed_bytes)} MB and {prediction.bytes_per_image / 1e6:,.3f} MB "
        f"for each image\ncompiled: {', '.join(compiled)}"
    )


def scaling_lines(rows: Sequence[Row], machine: Row) -> str:
    """Weak and strong scaling."""
    cells = [["scaling", "devices", "batch", "ms a step", "images/s", "efficiency"]]
    for row in rows:
        start = [row["kind"], f"{row['devices']:,}", f"{row['batch_size']:,}"]
        rate, share = f"{row['images_per_second']:,.0f}", f"{row['efficiency']:.0%}"
        cells.append([*start, _milliseconds(row["step_seconds"]), rate, share])
    gradient = _megabytes(rows[0]["gradient_bytes"])
    lines = [f"{_devices(machine)}; gradients of {gradient} MB:", "", *markdown_lines(cells)]
    if machine["platform"] == "cpu" and machine["devices"] > 1:
        virtual = "These devices are virtual: they share the cores of one CPU, and their times mean"
        lines += ["", f"{virtual} nothing."]
    return "\n".join(lines)
