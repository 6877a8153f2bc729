"""What was measured side by side, as tables for people and as a bar chart."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from parity.bench.contenders import PREPARING
from parity.bench.side_by_side import KINDS, OURS
from train.bench.report import share_cell, table

Row = Mapping[str, Any]

TITLES = {"train": "training step", "forward": "forward pass"}
RATIO = "capsjax / faster PyTorch"
_COLOURS = ("#c2571a", "#9aa7b8", "#4f6d94", "#2a3f5f", "#7a9e7e")


def markdown(rows: Sequence[Row], machine: Row) -> str:
    """Rows of `summarise`, with their `flops_per_image`, as a table of steps and one of passes.

    A network, dtype and batch size is a line; the machine has `device_kind` and `ceilings`
    as of `train.bench.ceilings`, `cores`, and the versions `jax` and `torch`.
    """
    ceilings = machine["ceilings"]["matrix_flops"]
    products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {d}" for d, rate in ceilings.items())
    contenders = sorted({row["contender"]: None for row in rows}, key=lambda name: name != OURS)
    counts = sorted({row["rounds"] for row in rows if not row["failure"]}) or [0]
    rounds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    about = "{device_kind}, {cores} cores, JAX {jax}, PyTorch {torch}".format(**machine)
    parts = [f"{about}; matrix products {products}; rates are medians of {rounds} rounds in turns."]
    for kind in KINDS:
        points: dict[str, dict[str, Row]] = {}
        for row in rows:
            if row["work"] == kind:
                points.setdefault(_point(row), {})[row["contender"]] = row
        lines = [_cells(at_point, contenders, ceilings) for at_point in points.values()]
        title = TITLES[kind].capitalize()
        parts.append(f"{title}, images a second:\n\n{table(lines)}")
    notes = {f"{row['contender']}: {row['note']}." for row in rows if row.get("note")}
    failed = [row for row in rows if row["failure"] and row["work"] == KINDS[0]]
    parts += [f"{_point(row)}: {row['contender']} cannot run: {row['failure']}" for row in failed]
    return "\n\n".join([*parts, *sorted(notes)])


def _point(row: Row) -> str:
    return f"{row['model']}, {row['dtype']}, batch {row['batch_size']}"


def _cells(
    rows: Mapping[str, Row], contenders: Sequence[str], ceilings: Mapping[str, float]
) -> dict[str, str]:
    """The line of a point, of which there are the rows by contender."""
    first = next(iter(rows.values()))
    cells = {"network": f"`{first['model']}`", "dtype": first["dtype"]}
    cells["batch"] = f"{first['batch_size']:,}"
    for name in contenders:
        row = rows.get(name)
        cells[name] = "-" if row is None else "fails" if row["failure"] else _rate(row)
    ran = {name: row for name, row in rows.items() if not row["failure"]}
    ours = ran.pop(OURS, None)
    theirs = max(ran.values(), key=lambda row: row["images_per_second"], default=None)
    cells[RATIO] = "-"
    if ours is not None and theirs is not None:
        cells[RATIO] = "{ratio:.2f} ({ratio_low:.2f} to {ratio_high:.2f})".format(**theirs)
    flops = first["flops_per_image"]
    if ours is not None and flops is not None:
        cells["GFLOP an image"] = f"{flops / 1e9:.3g}"
        share = flops * ours["images_per_second"] / ceilings[ours["dtype"]]
        cells["of the matrix products"] = share_cell(share)
    if first["work"] == "train":
        both = [row for row in (ours, theirs) if row is not None]
        cells["memory, GB"] = " / ".join(f"{row['peak_bytes'] / 1e9:.2f}" for row in both)
        cells["first step, s"] = " / ".join(f"{row['first_step_seconds']:.1f}" for row in both)
        if ours is not None and PREPARING[0] in ours:
            prepared = " + ".join(f"{ours[name]:.1f}" for name in PREPARING)
            cells["of it tracing + compiling"] = prepared
    return cells


def _rate(row: Row) -> str:
    rate = row["images_per_second"]
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Draws rows of `summarise`: a group of bars for each point, with the outer rounds."""
    ran = [row for row in rows if not row["failure"]]
    contenders = list(dict.fromkeys(row["contender"] for row in ran))
    points = list(dict.fromkeys(map(_point, ran)))
    width = 0.8 / max(len(contenders), 1)
    figure = Figure(figsize=(10, max(4.2, 0.6 * len(points))), layout="constrained")
    for axes, (work, name) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        for i, contender in enumerate(contenders):
            chosen = [row for row in ran if (row["contender"], row["work"]) == (contender, work)]
            shift = (i - (len(contenders) - 1) / 2) * width
            axes.barh(
                [points.index(_point(row)) + shift for row in chosen],
                [row["images_per_second"] for row in chosen],
                width * 0.92,
                xerr=[
                    [row["images_per_second"] - row["slowest"] for row in chosen],
                    [row["fastest"] - row["images_per_second"] for row in chosen],
                ],
                capsize=3,
                label=contender,
                color=_COLOURS[i % len(_COLOURS)],
                error_kw={"elinewidth": 1, "ecolor": "#333333"},
            )
        axes.set_yticks(range(len(points)), points)
        axes.invert_yaxis()
        axes.set(title=name, xlabel="images a second")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure
