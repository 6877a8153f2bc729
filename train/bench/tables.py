"""The benchmark's results as text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from train.bench.growth import Growth
from train.bench.memory import Prediction
from train.bench.split import NAMES

Row = Mapping[str, Any]

_COLUMNS = {
    "batch_size": "batch",
    "dtype": "dtype",
    "iterations": "iterations",
    "implementation": "routing",
    "primary_capsules": "capsules",
}
IN_ROUTING = "in routing"
"""Stands for the votes of a step whose routing makes none that could be timed alone."""

_UNITS = {"batch": "image", "iterations": "iteration", "capsules": "primary capsule"}


def machine_lines(machine: Row, dataset: str, images: int, synthetic: bool) -> str:
    """What was measured on, and its ceilings."""
    ceilings = machine["ceilings"]
    products = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in ceilings["matrix_flops"].items()
    )
    kind = "synthetic images of the shape of" if synthetic else "images of"
    return (
        f"{machine['devices']} x {machine['device_kind']}, JAX {machine['jax']}, "
        f"{images:,} {kind} {dataset}\n"
        f"ceilings: matrix products {products}; memory {ceilings['memory_bytes'] / 1e9:,.1f} GB/s "
        "read and written"
    )


def tables(rows: Sequence[Row], machine: Row) -> str:
    """Every table: speed, time of the parts, memory, and work."""
    ran = [row for row in rows if row["failure"] is None]
    parts = [row for row in ran if row["parts"]]
    sections = [speed_table(rows, machine)]
    if parts:
        sections += [
            "Time of the parts, forward and backward, ms a step (share of the matrix products' "
            f"ceiling):\n\n{time_table(parts, machine)}",
            f"Memory of the parts, each a program of its own, MB:\n\n{memory_table(parts)}",
        ]
    if ran:
        sections.append(f"Work, MFLOP an image:\n\n{work_table(ran)}")
    return "\n\n".join(sections)


def speed_table(rows: Sequence[Row], machine: Row) -> str:
    """How fast each configuration trains, and what it takes."""

    def cells(row: Row) -> list[str]:
        if row["failure"]:
            return [f"cannot run: {row['failure']}", *[""] * 5]
        return [
            f"{row['images_per_second']:,.1f} ({row['slowest']:,.1f} to {row['fastest']:,.1f})",
            f"{1e3 * row['step_seconds']:.2f}",
            f"{share_of_ceiling(row, machine):.1%}",
            f"{row['memory']['total'] / 1e6:,.1f}",
            f"{row['peak_bytes'] / 1e6:,.0f}",
            f"{row['compile_seconds']:.1f}",
        ]

    heads = [
        "images/s (slowest to fastest)",
        "ms a step",
        "of the ceiling",
        "step's memory, MB",
        "peak in use, MB",
        "compiling, s",
    ]
    return _table(rows, heads, cells)


def time_table(rows: Sequence[Row], machine: Row) -> str:
    """The parts' times, their sum and the whole step."""

    def cells(row: Row) -> list[str]:
        ceiling = machine["ceilings"]["matrix_flops"][row["dtype"]]
        count = machine["devices"]
        each = []
        for part in _parts(row):
            if part is None:
                each.append(IN_ROUTING)
                continue
            share = part["flops"] * count / part["seconds"] / ceiling
            milliseconds = f"{1e3 * part['seconds']:.2f}"
            each.append(f"{milliseconds} ({share:.0%})" if part["flops"] else milliseconds)
        total = sum(part["seconds"] for part in row["parts"])
        return [
            *each,
            f"{1e3 * total:.2f}",
            f"{1e3 * row['step_seconds']:.2f}",
            f"{1 - total / row['step_seconds']:.0%}",
        ]

    return _table(rows, [*NAMES, "sum", "whole step", "not covered"], cells)


def _parts(row: Row) -> list[Row | None]:
    """Each part that a step may have; None for what this one's routing does in one."""
    by_name = {part["name"]: part for part in row["parts"]}
    return [by_name.get(name) for name in NAMES]


def memory_table(rows: Sequence[Row]) -> str:
    """The parts' memory by the compiler's analysis."""

    def cells(row: Row) -> list[str]:
        return [
            *(
                IN_ROUTING if part is None else f"{part['memory']['total'] / 1e6:,.1f}"
                for part in _parts(row)
            ),
            f"{row['memory']['total'] / 1e6:,.1f}",
        ]

    return _table(rows, [*NAMES, "whole step"], cells)


def work_table(rows: Sequence[Row]) -> str:
    """The work of an image: of the algorithm, and of the program that the compiler made."""

    def cells(row: Row) -> list[str]:
        counts = row["flops_per_image"]
        return [
            "-" if counts[name] is None else f"{counts[name] / 1e6:,.2f}"
            for name in ("forward", "forward_compiled", "training", "training_compiled")
        ]

    heads = ["forward", "forward, compiled", "forward and backward", "step, compiled"]
    return _table(rows, heads, cells)


def share_of_ceiling(row: Row, machine: Row) -> float:
    """The nominal work done in a second, over the rate of the matrix products."""
    done = row["images_per_second"] * row["flops_per_image"]["training"]
    return done / machine["ceilings"]["matrix_flops"][row["dtype"]]


def growth_sentence(growth: Growth) -> str:
    """How cost grows, in a sentence."""
    first, last = growth.values[0], growth.values[-1]
    return (
        f"{growth.axis} {first:,} to {last:,} ({describe(growth.same)}): a step takes "
        f"{1e3 * growth.fixed_seconds:.3g} ms and {1e3 * growth.seconds_each:.3g} ms for each "
        f"{_UNITS[growth.axis]}, within {growth.off_by:.0%}."
    )


def describe(same: Row) -> str:
    """What is the same in several rows."""
    words = {
        "batch_size": "batch {}",
        "dtype": "{}",
        "iterations": "{} iterations",
        "implementation": "routing {}",
        "primary_capsules": "{} capsules",
    }
    return ", ".join(words[name].format(v) for name, v in same.items() if v is not None)


def feed_table(rows: Sequence[Row], batch_size: int) -> str:
    """The rates of the feeds."""
    lines = [
        "| feed | workers | images/s (slowest to fastest) | first batch, s |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['feed']} | {row['workers']} | {row['images_per_second']:,.0f} "
        f"({row['slowest']:,.0f} to {row['fastest']:,.0f}) | {row['first_batch_seconds']:.2f} |"
        for row in rows
    ]
    return f"Batches of {batch_size}, brought onto the device:\n\n" + "\n".join(lines)


def prediction_lines(prediction: Prediction, budget: int) -> str:
    """The largest batch that fits, and how it was found."""
    compiled = ", ".join(
        f"{size:,}: {needed / 1e6:,.1f} MB" for size, needed in prediction.compiled.items()
    )
    return (
        f"the largest batch that fits in {budget / 1e6:,.1f} MB a device is "
        f"{prediction.batch_size:,}\n"
        f"predicted {prediction.predicted_bytes / 1e6:,.1f} MB, compiled "
        f"{prediction.compiled_bytes / 1e6:,.1f} MB; a step takes "
        f"{prediction.fixed_bytes / 1e6:,.1f} MB and {prediction.bytes_per_image / 1e6:,.3f} MB "
        f"for each image\n"
        f"compiled: {compiled}"
    )


def scaling_lines(
    rows: Sequence[Row], predicted: Sequence[Row], machine: Row, link_bytes: float | None
) -> str:
    """Weak and strong scaling, measured and predicted."""

    def table(rows: Sequence[Row], *, communication: bool) -> str:
        heads = ["scaling", "devices", "batch", "ms a step", "images/s", "efficiency"]
        if communication:
            heads.insert(4, "of it communication, ms")
        lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for row in rows:
            cells = [row["kind"], f"{row['devices']:,}", f"{row['batch_size']:,}"]
            cells.append(f"{1e3 * row['step_seconds']:.2f}")
            if communication:
                cells.append(f"{1e3 * row['communication_seconds']:.2f}")
            cells += [f"{row['images_per_second']:,.0f}", f"{row['efficiency']:.0%}"]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    sections = [
        f"{machine['devices']} x {machine['device_kind']}, JAX {machine['jax']}; measured:",
        table(rows, communication=False),
    ]
    if machine["platform"] == "cpu" and machine["devices"] > 1:
        sections.append(
            "These devices are virtual: they share the cores of one CPU, and their times mean "
            "nothing."
        )
    gradient = rows[0]["gradient_bytes"]
    if link_bytes:
        sections += [
            f"Predicted for gradients of {gradient / 1e6:,.1f} MB and links of "
            f"{link_bytes / 1e9:,.1f} GB/s:",
            table(predicted, communication=True),
        ]
    else:
        sections.append(
            f"--link-bandwidth predicts it for more devices; a gradient takes "
            f"{gradient / 1e6:,.1f} MB."
        )
    return "\n\n".join(sections)


def _table(rows: Sequence[Row], heads: Sequence[str], cells: Callable[[Row], Sequence[str]]) -> str:
    columns = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows)]
    lines = [
        f"| {' | '.join([*(_COLUMNS[name] for name in columns), *heads])} |",
        f"|{'---|' * (len(columns) + len(heads))}",
    ]
    for row in rows:
        start = ["-" if row.get(name) is None else f"{row[name]}" for name in columns]
        lines.append(f"| {' | '.join([*start, *cells(row)])} |")
    return "\n".join(lines)
