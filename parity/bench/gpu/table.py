"""The report as Markdown: what it ran on, how, and one table of figure, reached and aim."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from parity.bench.gpu.plan import Found, fastest
from train.bench.report import rate_cell
from train.system.tables import markdown_lines

FASTEST_PYTORCH = ("torch-fast", "torch-compile")
"""The contenders that are PyTorch as fast as it gets; the other one is PyTorch as it is plain."""


class Row(NamedTuple):
    """A line of the table."""

    figure: str
    reached: str
    aim: str = ""


def markdown(report: Mapping[str, Any]) -> str:
    """The report that `report` puts together, for people."""
    machine = report["parts"].get("machine", {}).get("found", {})
    kind = f"{machine['devices']} x {machine['device_kind']}" if machine else "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        "# Measured on the device",
        "",
        f"- date: {report['date']}",
        f"- device: {kind}",
        f"- versions: {versions}",
        f"- command: `{report['command']}`",
        *(f"- {name} alone: `{command}`" for name, command in report["alone"].items()),
        "",
        *markdown_lines([Row._fields, *rows(report)]),
    ]
    return "\n".join(lines) + "\n"


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The table's lines, in the order of the parts: what was found, then what failed."""
    found = {name: part["found"] for name, part in report["parts"].items()}
    table: list[Row] = []
    for name, part in report["parts"].items():
        if name in _ROWS:
            table += _ROWS[name](part["found"], found, report["plan"])
        if part["failure"]:
            table.append(_failed(name, part))
    return [Row(*(cell.replace("|", "\\|") for cell in row)) for row in table]


def _failed(figure: str, found: Found) -> Row:
    return Row(figure, f"failed: {found['failure']}")


def _training(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    name = f"training, {plan['dtype']}"
    best = fastest(found.get("rows", []))
    if best is not None:
        rate = best["images_per_second"]
        figure = f"{name}, best batch ({_point(best)})"
        yield Row(figure, f"{rate:,.0f} images/s", "200,000 images/s")
        ceilings = others.get("machine", {}).get("ceilings")
        if ceilings and found["flops_per_image"]:
            share = rate * found["flops_per_image"] / ceilings["matrix_flops"][plan["dtype"]]
            yield Row(f"{name}, share of the rate of matrix products", f"{share:.1%}", "30 %")
    for row in found.get("rows", []):
        yield Row(f"{name}, {_point(row)}", row["failure"] or f"{rate_cell(row)} images/s")


def _point(row: Found) -> str:
    return f"batch {row['batch_size']:,}, routing {row['implementation'] or 'by default'}"


def _contenders(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    training = [row for row in found.get("rows", []) if row["work"] == "train"]
    ours = fastest([row for row in training if row["contender"] == "capsjax"])
    theirs = fastest([row for row in training if row["contender"] in FASTEST_PYTORCH])
    if ours and theirs:
        ratio = ours["images_per_second"] / theirs["images_per_second"]
        yield Row(
            f"training, {plan['dtype']}, capsjax (batch {ours['batch_size']:,}) / fastest PyTorch "
            f"({theirs['contender']}, batch {theirs['batch_size']:,})",
            f"{ratio:.2f}",
            "1.5",
        )
    for row in training:
        name, figure = row["contender"], f"training, {plan['dtype']}, batch {row['batch_size']:,}"
        if row["failure"]:
            yield _failed(f"{figure}, {name}", row)
        elif name != "capsjax":  # whom the others are compared with
            times = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
            reached = f"{times} ({name}: {row['images_per_second']:,.0f} images/s)"
            aim = "1.5" if name in FASTEST_PYTORCH else "10"
            yield Row(f"{figure}, capsjax / {name}", reached, aim)


def _an_epoch(run: Found, aim: str = "") -> Row:
    dataset, batch = run["summary"]["dataset"], f"batch {run['batch_size']:,}"
    figure = f"an epoch of {dataset} in fit, {run['dtype']}, {batch}, evaluation apart"
    reached = f"{run['training_seconds']:.3f} s (with it {run['epoch_seconds']:.3f} s)"
    return Row(figure, reached, aim)


def _routing(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    for implementation, cost in found.items():
        figure = f"routing, {plan['dtype']}, batch {plan['routing_batch']:,}, {implementation}"
        if cost["failure"]:
            yield _failed(figure, cost)
            continue
        for key, title in (("forward", "forward"), ("both", "forward and backward")):
            milliseconds = f"{1000 * cost[key]['seconds']:.3f} ms"
            size = _size(cost[key]["memory"]["total"])
            yield Row(f"{figure}, {title}", f"{milliseconds}, {size}")


def _memory(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    largest = found.get("largest")
    if largest is not None:
        figure = f"largest batch that trains, {plan['dtype']}, routing {largest['implementation']}"
        above = ", ".join(f"{size:,}" for size in largest["failed"])
        if largest["failure"]:
            yield Row(figure, f"none of {above}: {largest['failure']}")
        else:
            beyond = f"; not {above}" if above else ""
            yield Row(figure, f"{largest['batch_size']:,} ({_size(largest['peak_bytes'])}{beyond})")
    for name, line in found.get("implementations", {}).items():
        figure = f"memory of a training step for an image, {plan['dtype']}, routing {name}"
        failed = line["failure"] is not None
        yield _failed(figure, line) if failed else Row(figure, _size(line["bytes_per_image"]))


def _parity(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    for size, result in found.items():
        count, first = result["comparisons"], result["first_difference"]
        yield Row(
            f"parity check, {size} network, float32: comparisons within their limits",
            f"{count - result['beyond']:,} of {count:,} in {result['cases']} of "
            f"{result['cases_there_are']} cases{f'; first beyond: {first}' if first else ''}",
            "all",
        )


def _recipe(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    for dtype, runs in found.items():
        figure = f"test error of fit {plan['config']['preset']}, {dtype}"
        run = runs.get("run")
        if run is None:
            yield Row(figure, "no time was left for an epoch")
        else:
            epochs = f"{run['epochs']:g} of the recipe's {plan['config']['schedule']['epochs']:g}"
            error = run["summary"]["test.error_percent"]
            yield Row(f"{figure}, {epochs} epochs", f"{error:.2f} %")
        yield _an_epoch(run or runs["probe"])


_ROWS: Mapping[str, Callable[..., Iterable[Row]]] = {
    "training": _training,
    "contenders": _contenders,
    "epoch": lambda found, *_: [_an_epoch(run, "0.5 s") for run in found.values()],
    "routing": _routing,
    "memory": _memory,
    "parity": _parity,
    "recipe": _recipe,
}


def _size(count: float) -> str:
    """Bytes with three digits: 12.3 MB."""
    power = min(4, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
