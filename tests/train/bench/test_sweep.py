import pytest

from tests.tolerance import assert_close
from tests.train.bench.conftest import make_row
from train.bench.sweep import (
    GROWING_ITERATIONS,
    GROWING_TYPES,
    describe,
    growths,
    list_configs,
    scaling_points,
)
from train.system.errors import UserError

LIMITS = {"largest_batch": 40, "devices": 1}


def test_without_lists_the_recipe_is_all(config):
    ((row, changed),) = list_configs([config], {}, **LIMITS)
    assert changed == config
    assert describe(row) == "batch 8, float32, 3 iterations"


def test_every_combination_is_measured_once(config):
    varied = {"batch_size": [4, 8], "iterations": [1, 3], "dtype": ["float32"]}
    rows = [row for row, _ in list_configs([config], varied, **LIMITS)]
    found = [(row["batch_size"], row["iterations"]) for row in rows]
    assert found == [(4, 1), (4, 3), (8, 1), (8, 3)]


def test_quantities_grow_one_at_a_time_from_the_same_point(config):
    grow = ["batch", "iterations", "capsules"]
    rows = [row for row, _ in list_configs([config], {}, grow, largest_batch=40, devices=2)]
    points = [(row["batch_size"], row["iterations"], row["primary_types"]) for row in rows]
    assert points.count((8, 3, None)) == 1
    assert [batch for batch, *others in points if others == [3, None]] == [2, 4, 8, 16, 32]
    iterations = [i for batch, i, types in points if (batch, types) == (8, None)]
    assert sorted(iterations) == sorted(GROWING_ITERATIONS)
    assert [types for *_, types in points if types] == list(GROWING_TYPES)


def test_a_row_changes_what_it_names_and_nothing_else(config):
    varied = {"batch_size": [4], "dtype": ["bfloat16"], "iterations": [2]}
    varied |= {"implementation": ["xla", "none"], "primary_types": [5]}
    (row, xla), (_, none) = list_configs([config], varied, **LIMITS)
    assert describe(row) == "batch 4, bfloat16, 2 iterations, routing xla, 5 types"
    wanted = {"batch_size": 4, "dtype": "bfloat16", "routing_iterations": 2}
    for changed, implementation in ((xla, "xla"), (none, None)):
        options = {"routing_implementation": implementation, "primary_types": 5}
        options = config.model.options | options
        assert changed == config.changed(**wanted, model_options=options)
    ((_, plain),) = list_configs([config], {"iterations": [2]}, **LIMITS)
    assert "routing_implementation" not in plain.model.options


def test_networks_are_measured_by_recipes_of_their_own(config):
    other = config.changed(model="aff_capsnet", routing="uniform", batch_size=6)
    found = list_configs([config, other], {"dtype": ["float32", "bfloat16"]}, **LIMITS)
    assert [describe(row) for row, _ in found] == [
        "capsnet, batch 8, float32, 3 iterations",
        "capsnet, batch 8, bfloat16, 3 iterations",
        "aff_capsnet, batch 6, float32",
        "aff_capsnet, batch 6, bfloat16",
    ]
    wanted = [one.changed(dtype=d) for one in (config, other) for d in ("float32", "bfloat16")]
    assert [changed for _, changed in found] == wanted


def test_a_wrong_value_is_refused(config):
    with pytest.raises(UserError, match="unknown dtype 'float8'"):
        list_configs([config], {"dtype": ["float8"]}, **LIMITS)


def test_rows_that_differ_in_one_quantity_grow(failed):
    batches = [make_row(batch_size=b, step_seconds=0.002 + 0.0005 * b) for b in (8, 2, 4)]
    iterations = [make_row(iterations=i, step_seconds=0.004 + 0.001 * i) for i in (1, 5)]
    found = {growth.axis: growth for growth in growths([*batches, *iterations, failed])}
    assert set(found) == {"batch", "iterations"}
    batch = found["batch"]
    assert batch.values == [2, 4, 8]
    assert_close([batch.line.fixed, batch.line.each], [0.002, 0.0005])
    assert batch.same == {
        "model": None,
        "dtype": "float32",
        "iterations": 3,
        "implementation": None,
        "primary_capsules": 32,
    }
    assert found["iterations"].values == [1, 3, 5]


def test_each_group_grows_by_itself():
    rows = [make_row(batch_size=b, dtype=d) for b in (1, 2) for d in ("float32", "bfloat16")]
    assert [growth.same["dtype"] for growth in growths(rows)] == ["float32", "bfloat16"]


def test_a_network_without_primary_capsules_does_not_grow_in_them():
    assert not growths([make_row(primary_capsules=None), make_row(primary_capsules=None)])


@pytest.mark.parametrize(
    ("devices", "weak", "strong"),
    [
        (1, [(1, 6)], [1]),
        (4, [(1, 6), (2, 12), (4, 24)], [1, 2]),  # 4 cannot share 6
        (3, [(1, 6), (2, 12), (3, 18)], [1, 2, 3]),
    ],
)
def test_weak_scaling_grows_the_batch_and_strong_scaling_shares_it(devices, weak, strong):
    points = [("weak", *point) for point in weak] + [("strong", count, 6) for count in strong]
    assert scaling_points(6, devices) == points
