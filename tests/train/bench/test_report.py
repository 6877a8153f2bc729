import json

import pytest
from matplotlib.figure import Figure

from tests.train.bench.conftest import PREDICTION, make_row
from train.bench.report import (
    Report,
    feed_table,
    growth_sentence,
    machine_lines,
    prediction_lines,
    scaling_lines,
    training_tables,
)
from train.bench.sweep import growths
from train.system.errors import UserError


def cells_of(text, number):
    """The cells of the only row of one of the tables in a text."""
    tables = [part for part in text.split("\n\n") if part.startswith("| batch")]
    return [cell.strip() for cell in tables[number].splitlines()[2].strip("|").split("|")]


def test_a_row_says_how_fast_and_at_what_cost(machine, failed):
    text = training_tables([make_row(), failed], machine)
    assert text.startswith("Training:\n\n|")
    lines = text.splitlines()[2:]
    assert lines[0].startswith("| batch | dtype | iterations | capsules | images/s")
    assert lines[2] == (
        "| 8 | float32 | 3 | 32 | 1,000.0 (900.0 to 1,100.0) | 8.00 | 10.0% | 2.5 | 1.2 | 500 "
        "| 1.2 |"
    )
    assert "| 16 | float32 | 3 | - | cannot run: no room |" in lines[3]
    assert all(line.count("|") == lines[0].count("|") for line in lines[:4])


def test_without_a_count_of_the_work_there_is_no_share(machine):
    row = make_row(parts=[make_row()["parts"][0] | {"flops": None}])
    row["flops_per_image"]["training"] = None
    text = training_tables([row], machine)
    assert cells_of(text, 0)[6] == cells_of(text, 3)[6] == "-"
    assert cells_of(text, 1)[4:6] == ["1.00", "in routing"]


def test_the_parts_are_held_against_the_whole_step(machine):
    cells = cells_of(training_tables([make_row()], machine), 1)
    # Two devices do 40 million operations in 1 ms, of 120 in the same time.
    assert cells[4:] == [*["1.00 (67%)"] * 5, "5.00", "8.00", "38%"]


def test_votes_that_are_no_part_are_said_to_be_in_the_routing(machine):
    row = make_row()
    parts = [part for part in row["parts"] if part["name"] != "votes"]
    text = training_tables([row | {"parts": parts}], machine)
    assert cells_of(text, 1)[4:7] == ["1.00 (67%)", "in routing", "1.00 (67%)"]
    assert cells_of(text, 2)[4:] == ["2.5", "in routing", *["2.5"] * 4]


def test_an_implementation_has_a_column_where_there_is_a_choice(machine):
    assert "| routing | capsules" not in training_tables([make_row()], machine)
    rows = [make_row(implementation="xla"), make_row(implementation="none")]
    text = training_tables(rows, machine)
    assert "| 8 | float32 | 3 | xla | 32 | 4.00 | 5.00 | 12.00 | - |" in text


def test_models_without_parts_are_reported_whole(machine):
    text = training_tables([make_row(parts=[])], machine)
    assert "parts" not in text
    assert "Work" in text


def test_synthetic_images_are_called_so(machine):
    said = machine_lines(machine, "mnist", 60_000, synthetic=True)
    assert said.startswith(
        "2 x abacus, JAX 0.10.2, 60,000 synthetic images of the shape of mnist\n"
    )
    assert "120 GFLOP/s in float32" in said
    assert "synthetic" not in machine_lines(machine, "mnist", 60_000, synthetic=False)


def test_growth_is_a_sentence():
    rows = [make_row(iterations=i, step_seconds=0.004 + 0.001 * i) for i in (1, 5)]
    (growth,) = growths(rows)
    assert growth_sentence(growth) == (
        "iterations 1 to 5 (batch 8, float32, 32 capsules): a step takes 4 ms and 1 ms for each "
        "iteration."
    )
    (growth,) = growths([*rows, make_row(iterations=3, step_seconds=0.0077)])
    assert growth_sentence(growth).endswith(" ms for each iteration, within 6%.")


def test_feeds_predictions_and_scaling(machine):
    row = {"feed": "streaming", "workers": 2, "images_per_second": 20_000.0}
    row |= {"slowest": 19_000.0, "fastest": 21_000.0, "first_batch_seconds": 0.5}
    assert "| streaming | 2 | 20,000 (19,000 to 21,000) | 0.50 |" in feed_table([row], 64)
    said = prediction_lines(PREDICTION, 60_000_000)
    assert "the largest batch that fits in 60.0 MB a device is 4,900" in said
    assert "predicted 50.0 MB, compiled 50.1 MB" in said
    row = {"kind": "weak", "devices": 2, "batch_size": 16, "step_seconds": 0.004}
    row |= {"images_per_second": 4000.0, "efficiency": 0.75, "gradient_bytes": 10**6}
    said = scaling_lines([row], machine | {"platform": "gpu"})
    assert "2 x abacus, JAX 0.10.2; gradients of 1.0 MB:" in said
    assert "| weak | 2 | 16 | 4.00 | 4,000 | 75% |" in said
    assert "virtual" not in said
    assert "virtual" in scaling_lines([row], machine | {"platform": "cpu"})
    said = scaling_lines([row | {"efficiency": 1.04}], machine | {"platform": "gpu"})
    assert "| 4,000 | >100% (noise?) |" in said


def test_a_report_is_printed_and_written(tmp_path, capsys):
    report = Report("text", {"value": 1}, {"a.png": Figure()})
    report.deliver(json=None, plot=None)
    assert capsys.readouterr().out == "text\n"
    report.deliver(json=tmp_path / "r.json", plot=tmp_path / "new" / "figures")
    assert json.loads((tmp_path / "r.json").read_text()) == {"value": 1}
    figure = tmp_path / "new" / "figures" / "a.png"
    assert figure.exists()
    assert capsys.readouterr().out == f"text\n{figure}\n"


def test_what_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot be written"):
        Report("", {}, {}).deliver(json=None, plot=tmp_path / "file")
