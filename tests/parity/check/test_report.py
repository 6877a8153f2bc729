"""The command line of `check`, and what it writes."""

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from parity.__main__ import main
from parity.check import report, runner
from parity.check.comparison import Comparison, Growth, Result, Stage, error_between
from parity.check.subjects import Case
from train.system.errors import UserError


@pytest.fixture
def result() -> Result:
    """A check in which `c1` failed, in one of two cases."""

    def comparison(case: str, group: str, name: str, value: float, limit: float) -> Comparison:
        error = error_between(np.float32([1, 2 + value]), np.float32([1, 2]))
        return Comparison(Stage(group, name), error, limit, "tiny", case)

    return Result(
        "reference",
        "float32",
        "digits",
        0,
        [
            comparison("batch 1", "forward", "u_hat", 0, 2e-6),
            comparison("batch 7", "forward", "c1", 0, 2e-6),
            comparison("batch 32", "forward", "c1", 0.5, 2e-6),
            comparison("batch 32", "gradient", "images", 0.5, 2e-5),
        ],
        [Growth("tiny, 20 steps", [1, 2], {"parameters (training)": [1e-7, 2e-7]}, {})],
        1.5,
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case and no training in the place of all of them."""
    case = Case("tiny", 1, 2, gradients=False, kinds=("images",), biases=(True,))
    original = runner.check

    def check(subject, **options):
        return original(subject._replace(cases=[case]), **options)

    monkeypatch.setattr(runner, "check", check)


def test_table_shows_the_worst_case_of_each_stage(result: Result):
    lines = report.table(result).splitlines()
    (row,) = [line for line in lines if "forward: c1" in line]
    assert row.split() == [
        "forward:",
        "c1",
        "2",
        "5.0e-01",
        "2.5e-01",
        "2.0e-06",
        "DIFFERS",
        "batch",
        "32",
    ]
    assert len(lines) == 5
    assert len(report.table(result, verbose=True).splitlines()) == 6


def test_the_summary_has_a_row_for_each_check_and_what_is_nearest_to_its_limit(result: Result):
    beside = result.comparisons[0]._replace(limit=None)
    good = dataclasses.replace(result, name="good", comparisons=[*result.comparisons[:2], beside])
    _, one, other, *_ = report.summary({"bad": [result], "good": [good]}).splitlines()
    row = "reference float32 4 forward: c1 2.5e-01 2.0e-06 DIFFERS"
    assert " ".join(one.split()) == row
    row = "good float32 2 forward: u_hat 0 2.0e-06 ok, 1 information"
    assert " ".join(other.split()) == row


def test_verdict_names_the_first_stage_that_parts(result: Result):
    told = report.verdict(result)
    assert "FAIL: 2 of 4 comparisons" in told
    assert "first stage that parts is forward: c1 (batch 32): 2.5e-01, limit 2.0e-06" in told


def test_verdict_of_a_check_that_passed(result: Result):
    del result.comparisons[2:]
    assert "PASS: all 2 comparisons in float32 are within their limits (" in report.verdict(result)
    result.comparisons[1] = result.comparisons[1]._replace(limit=None)
    assert "all 1 comparisons in float32 are within their limits, and 1 more " in report.verdict(
        result
    )


def test_json(result: Result):
    values = report.as_json(result)
    assert values["passed"] is False
    assert values["comparisons"] == 4
    assert values["first_difference"]["stage"] == "c1"
    assert values["first_difference"] == values["failures"][0]
    assert [stage["stage"] for stage in values["stages"]] == ["u_hat", "c1", "images"]
    assert values["stages"][1] == {
        "network": "tiny",
        "group": "forward",
        "stage": "c1",
        "case": "batch 32",
        "shape": [2],
        "absolute": 0.5,
        "relative": 0.25,
        "limit": 2e-6,
        "held": False,
        "note": "",
    }
    assert values["growth"][0]["errors"] == {"parameters (training)": [1e-7, 2e-7]}
    assert set(values["versions"]) == {"python", "jax", "torch"}


def test_infinite_errors_are_null_in_json(result: Result):
    error = error_between(np.float32([1]), np.float32([np.nan]))
    result.comparisons.append(Comparison(Stage("loss", "total"), error, 2e-6, "tiny", "case"))
    values = report.as_json(result)
    assert values["failures"][-1]["relative"] is None
    json.dumps(values, allow_nan=False)


def test_report_has_the_figures_and_the_numbers(result: Result, tmp_path: Path):
    folder = tmp_path / "report"
    report.write_report(folder, result)
    assert sorted(path.name for path in folder.iterdir()) == [
        "errors-tiny.png",
        "growth.png",
        "report.md",
    ]
    text = (folder / "report.md").read_text()
    assert "| forward | c1 | 2 | 5.0e-01 | 2.5e-01 | 2.0e-06 | DIFFERS | batch 32 |" in text
    for name in ("errors-tiny.png", "growth.png"):
        assert f"]({name})" in text
        picture = (folder / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", picture[16:24])
        assert width > 400
        assert height > 200


def test_check_passes_and_writes(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["check", "--sizes", "tiny", "--json", str(tmp_path / "out.json"), "--x64"]
    assert main([*arguments, "--report", str(tmp_path / "report"), "--seed", "4"]) == 0
    out, err = capsys.readouterr()
    assert "PASS" in out
    assert "float64" in out
    assert err == "[1/1] tiny, 1 iteration, batch 2\n"
    values = json.loads((tmp_path / "out.json").read_text())
    assert (values["passed"], values["seed"], values["dtype"]) == (True, 4, "float64")
    assert (tmp_path / "report" / "report.md").exists()
    assert not list(tmp_path.rglob(".*"))


def test_failed_parity_exits_with_one(
    result: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(runner, "check", lambda subject, **options: result)
    assert main(["check", "--json", str(tmp_path / "out.json")]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "--layout", "nobody"], "there is no layout 'nobody': choose one of"),
        (["check", "--seed", "-1"], "--seed is -1"),
        (["check", "--sizes", "huge"], "'huge'"),
        (["check", "--routing", "dynamics"], "there is no routing 'dynamics': choose one of dyn"),
        (["check", "--model", "capsnets"], "there is no model 'capsnets': choose one of aff"),
        (["check", "--seed", "9" * 30], "--seed is 99999999999999999999, but must be"),
        (["check", "--all", "--verbose"], "--verbose is of a single PyTorch implementation"),
        (["check", "--all", "--routing", "em"], "--all and --routing both say what to compare"),
        (["check", "--model", "cnn", "--layout", "gram-ai"], "--model and --layout both say"),
        (["check", "--routing", "em", "--sizes", "paper"], "--routing em compares tiny networks"),
        (["check", "--all", "--x64"], "in both precisions: leave --x64 out"),
        (["check", "--jsno", "x"], "did you mean --json?"),
        (["check", "--json", "{folder}/none/out.json"], "there is no folder"),
        (["check", "--json", "{folder}"], "is a folder: name a file"),
        (["check", "--report", "{folder}/none/report"], "there is no folder"),
        (["check", "--report", "{folder}/file"], "is a file: name a folder"),
        (["check", "--data-dir", "{folder}/none"], "none"),
        ([], "--help"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "file").write_text("")
    assert main([argument.format(folder=tmp_path) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_half_written(result: Result, tmp_path: Path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "growth.png").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        report.write_report(tmp_path / "report", result)
    assert not [path for path in (tmp_path / "report").iterdir() if path.name.startswith(".")]
