import pytest

from tests.train.bench.conftest import make_row
from train.bench.growth import growths


def test_rows_that_differ_in_one_quantity_grow(failed):
    batches = [make_row(batch_size=b, step_seconds=0.002 + 0.0005 * b) for b in (8, 2, 4)]
    iterations = [make_row(iterations=i, step_seconds=0.004 + 0.001 * i) for i in (1, 5)]
    found = {growth.axis: growth for growth in growths([*batches, *iterations, failed])}
    assert set(found) == {"batch", "iterations"}
    batch = found["batch"]
    assert batch.values == [2, 4, 8]
    assert batch.fixed_seconds == pytest.approx(0.002)
    assert batch.seconds_each == pytest.approx(0.0005)
    assert batch.off_by == pytest.approx(0, abs=1e-9)
    assert batch.same == {
        "dtype": "float32",
        "iterations": 3,
        "implementation": None,
        "primary_capsules": 32,
    }
    assert found["iterations"].values == [1, 3, 5]


def test_each_group_grows_by_itself():
    rows = [make_row(batch_size=b, dtype=d) for b in (1, 2) for d in ("float32", "bfloat16")]
    assert [growth.same["dtype"] for growth in growths(rows)] == ["float32", "bfloat16"]


def test_the_distance_from_the_line_is_told():
    rows = [make_row(iterations=i, step_seconds=s) for i, s in ((1, 1.0), (2, 4.0), (3, 1.0))]
    (growth,) = growths(rows)
    assert growth.off_by > 0.4


def test_a_network_without_primary_capsules_does_not_grow_in_them():
    assert not growths([make_row(primary_capsules=None), make_row(primary_capsules=None)])
