from tests.train.bench.conftest import make_row
from train.bench.growth import growths
from train.bench.memory import Prediction
from train.bench.tables import (
    feed_table,
    growth_sentence,
    machine_lines,
    prediction_lines,
    share_of_ceiling,
    speed_table,
    tables,
    time_table,
    work_table,
)


def test_a_row_says_how_fast_and_at_what_cost(machine, failed):
    lines = speed_table([make_row(), failed], machine).splitlines()
    assert lines[0].startswith("| batch | dtype | iterations | capsules | images/s")
    assert lines[2] == (
        "| 8 | float32 | 3 | 32 | 1,000.0 (900.0 to 1,100.0) | 8.00 | 10.0% | 2.5 | 500 | 1.2 |"
    )
    assert "| 16 | float32 | 3 | - | cannot run: no room |" in lines[3]
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_the_share_of_the_ceiling_is_of_the_nominal_work(machine):
    assert share_of_ceiling(make_row(), machine) == 1000 * 12e6 / 120e9


def test_the_parts_are_held_against_the_whole_step(machine):
    row = time_table([make_row()], machine).splitlines()[2]
    # Two devices do 40 million operations in 1 ms, of 120 in the same time.
    assert row.endswith("| 1.00 (67%) |" + " 1.00 (67%) |" * 4 + " 5.00 | 8.00 | 38% |")


def test_votes_that_are_no_part_are_said_to_be_in_the_routing(machine):
    row = make_row()
    parts = [part for part in row["parts"] if part["name"] != "votes"]
    cells = time_table([row | {"parts": parts}], machine).splitlines()[2].split(" | ")
    assert cells[-8:-4] == ["1.00 (67%)", "in routing", "1.00 (67%)", "1.00 (67%)"]


def test_an_implementation_has_a_column_where_there_is_a_choice(machine):
    assert "| routing |" not in work_table([make_row()])
    table = work_table([make_row(implementation="xla"), make_row(implementation="none")])
    assert "| 8 | float32 | 3 | xla | 32 | 4.00 | 5.00 | 12.00 | - |" in table


def test_models_without_parts_are_reported_whole(machine, failed):
    text = tables([make_row(parts=[])], machine)
    assert "parts" not in text
    assert "Work" in text
    assert tables([make_row(), failed], machine).count("cannot run") == 1


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
        "iteration, within 0%."
    )


def test_feeds_and_predictions():
    row = {"feed": "streaming", "workers": 2, "images_per_second": 20_000.0}
    row |= {"slowest": 19_000.0, "fastest": 21_000.0, "first_batch_seconds": 0.5}
    table = feed_table([row], 64)
    assert "| streaming | 2 | 20,000 (19,000 to 21,000) | 0.50 |" in table
    said = prediction_lines(
        Prediction(4900, 50_000_000, 50_100_000, 10_000.0, 1e6, {16: 1_160_000}), 60_000_000
    )
    assert "the largest batch that fits in 60.0 MB a device is 4,900" in said
    assert "predicted 50.0 MB, compiled 50.1 MB" in said
