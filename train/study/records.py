"""Results that are published: a file for each, and the tables in the docs that are made of them.

`docs/results/NAME/PART.json` is written by the command that it names. A page has its table between
`<!-- results: NAME -->` and `<!-- end of results -->`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.config.config_file import CADENCE, completed
from train.presets import get_preset, list_presets
from train.study.claims import get_claim
from train.study.compare import findings
from train.study.results import ROOT, origin
from train.study.statistics import spread
from train.study.trial import verdict
from train.system.errors import UserError
from train.system.files import write_json, write_whole, writing
from train.system.tables import markdown_lines

_NAME = r"[A-Za-z0-9][\w.-]*"
_MARK = re.compile(r"<!-- *(?:results|end of results)\b.*")
_TABLE = re.compile(
    rf"(?P<begin><!-- results: (?P<name>{_NAME}) -->\n)(?:(?!<!-- results).)*?"
    "(?P<end><!-- end of results -->)",
    re.S,
)


def keep(name: str, part: str, command: str, values: Mapping[str, Any]) -> Path:
    """Writes a part of a result for the docs, with where it comes from; returns the file.

    The plain values have their `kind`; `require_name` has seen the name. A UserError if the file
    cannot be written.
    """
    path = folder(name) / f"{part}.json"
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**origin(command), **values})
    return path


def folder(name: str) -> Path:
    """The folder of a result."""
    return ROOT / "docs" / "results" / name


def require_place(name: str, part: str, kind: str, config: Mapping[str, Any] | None = None) -> None:
    """Refuses a name whose results are of another kind, and a part that is of another training.

    Before anything is trained for it. The flat settings are those of a training. A UserError says
    so.
    """
    for path in sorted(folder(name).glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            other = "" if values["kind"] == kind else f"what `{values['kind']}` has recorded"
            if path.stem == part and config is not None and not other:
                settings = findings.differing(completed(values["config"]), [config], ())
                other = settings and f"a training with {settings}"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        if other:
            raise UserError(f"{path} is of {other}: choose another --record.")


def require_name(name: str | None) -> None:
    """A UserError if a name is no name of a folder, before anything is measured."""
    if name is not None and not re.fullmatch(_NAME, name):
        raise UserError(f"--record is {name!r}, but must be a name such as mnist-small.")


def outdated() -> dict[Path, str]:
    """The pages whose tables differ from their files, and what they should be, see `render`.

    A UserError if a page has half a table.
    """

    def table(found: re.Match[str]) -> str:
        return f"{found['begin']}{render(found['name'])}\n{found['end']}"

    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in pages}
    for path, text in texts.items():
        if mark := _MARK.search(_TABLE.sub("", text)):
            raise UserError(
                f"{path} has {mark[0]!r} without its other half: a table stands between "
                "<!-- results: NAME --> and <!-- end of results -->, in lines of their own."
            )
    return {path: new for path, text in texts.items() if (new := _TABLE.sub(table, text)) != text}


def render_all() -> list[Path]:
    """Makes the tables of all pages anew; the pages that were changed by it.

    A UserError if a result is missing or damaged, or a page cannot be written.
    """
    changed = outdated()
    for path, new in changed.items():
        with writing(path.parent):
            write_whole(path, new.encode())
    return list(changed)


def render(name: str) -> str:
    """The table of a result, and where it comes from, in Markdown.

    A UserError if there is no such result, or it is damaged.
    """
    files = sorted(folder(name).glob("*.json"))
    if not files:
        raise UserError(f"there is no result {name!r}: {folder(name)} has no files.")
    try:
        results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        (kind,) = {result["kind"] for result in results}
        lines = _KINDS[kind](*results)
        origins = [origin for result in results for origin in _origins(result)]
        dates = sorted({origin["date"] for origin in origins})
        where = sorted({f"{each['device_kind']}, JAX {each['jax']}" for each in origins})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder(name)} holds no result that can be read ({error!r}).") from error
    source = f"`{files[0].relative_to(ROOT)}`" + (f" and {len(files) - 1} more" * (len(files) > 1))
    period = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return "\n".join(["", *lines, "", f"From {source}; {period}, {'; '.join(where)}.", ""])


def _origins(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where the parts of a result come from that were kept from before, else the result."""
    of_cells = [cell["origin"] for cell in result.get("cells", ()) if "origin" in cell]
    return [*result.get("measured", of_cells)] or [result]


def _fits(*results: Mapping[str, Any]) -> list[str]:
    """A row for the networks of each recipe, with what sets it apart from its preset and others."""
    recipes: dict[str, list[Mapping[str, Any]]] = {}
    for result in sorted(results, key=lambda result: result["config"]["seed"]):
        config = completed(result["config"])
        recipe = {name: config[name] for name in config.keys() - CADENCE - {"seed"}}
        recipes.setdefault(json.dumps(recipe, sort_keys=True), []).append(result)
    configs = [completed(of_recipe[0]["config"]) for of_recipe in recipes.values()]
    rows = []
    for config, of_recipe in zip(configs, recipes.values(), strict=True):
        alike = [other for other in configs if other["preset"] == config["preset"]]
        if config["preset"] in list_presets():  # which may be another one by now
            now = get_preset(config["preset"]).flat()
            alike.append({**now, "validation": config["validation"]})
        settings = findings.differing(config, alike, {"preset", "seed"})
        rows.append(_fit_row(of_recipe, settings and f" `{settings}`"))
    examples = sorted({result["summary"]["test.examples"] for result in results})
    others = ", and with the other settings of the table" if len(recipes) > 1 else ""
    return [
        f"`{min(results, key=lambda result: result['config']['seed'])['command']}`{others}",
        "",
        *markdown_lines([list(rows[0]), *(list(row.values()) for row in rows)]),
        "",
        f"Of {' or '.join(map('{:,}'.format, examples))} test images, by the last checkpoint.",
    ]


def _fit_row(of_seeds: Sequence[Mapping[str, Any]], settings: str) -> dict[str, str]:
    summaries = [result["summary"] for result in of_seeds]
    first = summaries[0]
    errors = [summary["test.error_percent"] for summary in summaries]
    mean = f"{np.mean(errors):.3f}" + (f" ± {spread(errors):.3f}" * (len(errors) > 1))
    return {
        "recipe": f"`{first['preset']}`{settings}",
        "seeds": ", ".join(str(result["config"]["seed"]) for result in of_seeds),
        "test error, %": ", ".join(f"{error:.2f}" for error in errors),
        "mean": mean,
        "validation error, %": ", ".join(
            f"{summary['validation.error_percent']:.2f}"
            for summary in summaries
            if "validation.error_percent" in summary
        ),
        "parameters": f"{first['parameters']:,}",
        "steps": f"{first['steps']:,}",
        "images/s": f"{np.mean([summary['images_per_second'] for summary in summaries]):,.0f}",
    }


def _compared(*results: Mapping[str, Any]) -> list[str]:
    """A comparison, or of several, which differ in their settings, the accuracies alone."""
    if len(results) > 1:
        cells = [result["cells"] for result in results]
        return findings.of_settings(cells, results[0]["command"]).splitlines()
    return findings.markdown(results[0]["cells"], results[0]["command"]).splitlines()


def _tried(result: Mapping[str, Any]) -> list[str]:
    claim = get_claim(result["claim"])
    measured = [verdict.Measured.of(arm) for arm in result["arms"]]
    return verdict.markdown(claim, measured, result["budget"], result["command"]).splitlines()


def _benched(result: Mapping[str, Any]) -> list[str]:
    return [f"`{result['command']}`", "", *result["text"].splitlines()]


_KINDS: Mapping[str, Callable[..., list[str]]] = {
    "fit": _fits,
    "compare": _compared,
    "claims": _tried,
    "bench": _benched,
}
"""By the kind of its results, what makes the table's lines; fits and comparisons may be several."""
