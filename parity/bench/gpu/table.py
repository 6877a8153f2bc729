"""The report as Markdown: what it ran on, how, and one table of figure, reached and aim."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from parity.bench.gpu.parts import PARTS
from parity.bench.gpu.task import Found, fastest

FASTEST_PYTORCH = ("torch-fast", "torch-compile")
"""The contenders that are PyTorch as fast as it gets; the other one is PyTorch as it is plain."""


class Row(NamedTuple):
    """A line of the table."""

    figure: str
    reached: str
    aim: str = ""


def markdown(report: Mapping[str, Any]) -> str:
    """The report that `command.run` puts together, for people."""
    parts = report["parts"]
    machine = parts.get("machine", {}).get("found", {})
    kind = f"{machine['devices']} x {machine['device_kind']}" if machine else "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        "# Measured on the device",
        "",
        f"- date: {report['date']}",
        f"- device: {kind}",
        f"- versions: {versions}",
        f"- command: `{report['command']}`",
        *(f"- {part.name} alone: `{part.alone}`" for part in PARTS if part.alone),
        "",
        "| figure | reached | aim |",
        "|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows(report)),
    ]
    return "\n".join(lines) + "\n"


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The table's lines, in the order of the parts: what was found, then what failed."""
    makers = {
        "training": _training,
        "contenders": _contenders,
        "epoch": _epoch,
        "routing": _routing,
        "memory": _memory,
        "parity": _parity,
        "recipe": _recipe,
    }
    found = {name: part["found"] for name, part in report["parts"].items()}
    table: list[Row] = []
    for name, part in report["parts"].items():
        if name in makers:
            table += makers[name](part["found"], found, report["plan"])
        if part["failure"]:
            table.append(Row(name, f"failed: {part['failure']}"))
    return [Row(*(cell.replace("|", "\\|") for cell in row)) for row in table]


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
        reached = row["failure"] or (
            f"{row['images_per_second']:,.0f} ({row['slowest']:,.0f} to {row['fastest']:,.0f}) "
            "images/s"
        )
        yield Row(f"{name}, {_point(row)}", reached)


def _point(row: Found) -> str:
    routing = row["implementation"] or "by default"
    return f"batch {row['batch_size']:,}, routing {routing}"


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
        if row["contender"] == "capsjax" and not row["failure"]:
            continue  # whom the others are compared with
        figure = f"training, {plan['dtype']}, batch {row['batch_size']:,}"
        if row["failure"]:
            yield Row(f"{figure}, {row['contender']}", f"failed: {row['failure']}")
            continue
        times = "-" if row["ratio"] is None else f"{1 / row['ratio']:.2f}"
        yield Row(
            f"{figure}, capsjax / {row['contender']}",
            f"{times} ({row['contender']}: {row['images_per_second']:,.0f} images/s)",
            "1.5" if row["contender"] in FASTEST_PYTORCH else "10",
        )


def _epoch(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    if "run" in found:
        yield _an_epoch(found["run"], "0.5 s")


def _an_epoch(run: Found, aim: str) -> Row:
    return Row(
        f"an epoch of {run['summary']['dataset']} in fit, {run['dtype']}, batch "
        f"{run['batch_size']:,}, evaluation apart",
        f"{run['training_seconds']:.3f} s (with it {run['epoch_seconds']:.3f} s)",
        aim,
    )


def _routing(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    titles = {"forward": "forward", "both": "forward and backward"}
    for implementation, cost in found.items():
        figure = f"routing, {plan['dtype']}, batch {plan['routing_batch']:,}, {implementation}"
        if cost["failure"]:
            yield Row(figure, f"failed: {cost['failure']}")
            continue
        for key, title in titles.items():
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
    for implementation, line in found.get("implementations", {}).items():
        yield Row(
            f"memory of a training step for an image, {plan['dtype']}, routing {implementation}",
            f"failed: {line['failure']}" if line["failure"] else _size(line["bytes_per_image"]),
        )


def _parity(found: Found, others: Mapping[str, Found], plan: Found) -> Iterator[Row]:
    for size, result in found.items():
        count = result["comparisons"]
        first = result["first_difference"]
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
            yield _an_epoch(runs["probe"], "")
            continue
        epochs = plan["config"]["schedule"]["epochs"]
        yield Row(
            f"{figure}, {run['epochs']:g} of the recipe's {epochs:g} epochs",
            f"{run['summary']['test.error_percent']:.2f} %",
        )
        yield _an_epoch(run, "")


def _size(count: float) -> str:
    """Bytes with three digits: 12.3 MB."""
    power = min(4, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
