import pytest

from train.bench.points import GROWING_ITERATIONS, GROWING_TYPES, Point, sweep
from train.system.errors import UserError

LIMITS = {"largest_batch": 40, "devices": 1}


def test_without_lists_the_recipe_is_the_only_point(config):
    (point,) = sweep(config, **LIMITS)
    assert point.apply(config) == config


def test_every_combination_is_measured_once(config):
    points = sweep(config, batch_sizes=[4, 8], iterations=[1, 3], dtypes=["float32"], **LIMITS)
    assert {(p.batch_size, p.iterations) for p in points} == {(4, 1), (4, 3), (8, 1), (8, 3)}
    assert len(points) == 4


def test_quantities_grow_one_at_a_time_from_the_same_point(config):
    points = sweep(config, grow=["batch", "iterations", "capsules"], largest_batch=40, devices=2)
    here = Point(config.schedule.batch_size, config.model.dtype, config.model.routing_iterations)
    assert points.count(here) == 1
    sizes = [p.batch_size for p in points if p.iterations == 3 and p.primary_types is None]
    assert sizes == [2, 4, 8, 16, 32]
    iterations = [p.iterations for p in points if (p.batch_size, p.primary_types) == (8, None)]
    assert sorted(iterations) == sorted(GROWING_ITERATIONS)
    assert [p.primary_types for p in points if p.primary_types] == list(GROWING_TYPES)


def test_a_point_changes_what_it_names_and_nothing_else(config):
    point = Point(4, "bfloat16", 2, implementation="xla", primary_types=5)
    changed = point.apply(config)
    assert (changed.schedule.batch_size, changed.model.dtype, changed.model.routing_iterations) == (
        4,
        "bfloat16",
        2,
    )
    assert changed.model.options == config.model.options | {
        "routing_implementation": "xla",
        "primary_types": 5,
    }
    none = Point(4, "float32", 2, implementation="none").apply(config)
    assert none.model.options["routing_implementation"] is None
    assert "routing_implementation" not in Point(4, "float32", 2).apply(config).model.options


def test_a_wrong_value_is_told(config):
    with pytest.raises(UserError, match="unknown dtype 'float8'"):
        Point(4, "float8", 2).apply(config)
