"""The report as Markdown: what it ran on, how, and one table of figure, reached and aim."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from parity.bench.gpu.part import Found, fastest
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
    """The report that `runner.report` puts together, for people."""
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
        if name in _MAKERS:
            table += _MAKERS[name](part["found"], found, report["plan"])
        if part["failure"]:
            table.append(_failed(name, part["failure"]))
    return [Row(*(cell.replace("|", "\\|") for cell in row)) for row in table]


def _failed(figure: str, failure: str) -> Row:
    return Row(figure, f"failed: {failure}")


def _training(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    name = f"training, {plan['dtype']}"
    speeds = found.get("rows", [])
    best = fastest(speeds)
    if best is not None:
        reached = f"{best['images_per_second']:,.0f} images/s"
        yield Row(f"{name}, best batch ({_point(best)})", reached, "200,000 images/s")
        ceilings = others.get("machine", {}).get("ceilings")
        if ceilings:
            rate = best["images_per_second"] * found["flops_per_image"]
            share = rate / ceilings["matrix_flops"][plan["dtype"]]
            yield Row(f"{name}, share of the rate of matrix products", f"{share:.1%}", "30 %")
    for row in speeds:
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
            yield _failed(f"{figure}, {name}", row["failure"])
        elif name != "capsjax":  # whom the others are compared with
            times = "-" if row["ratio"] is None else f"{1 / row['ratio']:.2f}"
            yield Row(
                f"{figure}, capsjax / {name}",
                f"{times} ({name}: {row['images_per_second']:,.0f} images/s)",
                "1.5" if name in FASTEST_PYTORCH else "10",
            )


def _epoch(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    if "run" in found:
        yield _an_epoch(found["run"], "0.5 s")


def _an_epoch(run: Found, aim: str = "") -> Row:
    return Row(
        f"an epoch of {run['summary']['dataset']} in fit, {run['dtype']}, batch "
        f"{run['batch_size']:,}, evaluation apart",
        f"{run['training_seconds']:.3f} s (with it {run['epoch_seconds']:.3f} s)",
        aim,
    )


def _routing(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    for implementation, cost in found.items():
        figure = f"routing, {plan['dtype']}, batch {plan['routing_batch']:,}, {implementation}"
        if cost["failure"]:
            yield _failed(figure, cost["failure"])
            continue
        for key, title in (("forward", "forward"), ("both", "forward and backward")):
            took = cost[key]
            reached = f"{1000 * took['seconds']:.3f} ms, {_size(took['bytes'])}"
            yield Row(f"{figure}, {title}", reached)


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
    figure = f"memory of a training step for an image, {plan['dtype']}, routing"
    for name, line in found.get("implementations", {}).items():
        if line["failure"]:
            yield _failed(f"{figure} {name}", line["failure"])
        else:
            yield Row(f"{figure} {name}", _size(line["bytes_per_image"]))


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
    epochs = plan["config"]["schedule"]["epochs"]
    for dtype, runs in found.items():
        figure = f"test error of fit {plan['config']['preset']}, {dtype}"
        run = runs.get("run")
        if run is None:
            yield Row(figure, "no time was left for an epoch")
            yield _an_epoch(runs["probe"])
            continue
        figure += f", {run['epochs']:g} of the recipe's {epochs:g} epochs"
        yield Row(figure, f"{run['summary']['test.error_percent']:.2f} %")
        yield _an_epoch(run)


_MAKERS = {
    "training": _training,
    "contenders": _contenders,
    "epoch": _epoch,
    "routing": _routing,
    "memory": _memory,
    "parity": _parity,
    "recipe": _recipe,
}


def _size(count: float) -> str:
    """Bytes with three digits: 12.3 MB."""
    power = min(4, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
