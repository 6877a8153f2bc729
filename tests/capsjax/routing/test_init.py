"""Routings by name, from the plain values of a configuration."""

import typing
from pathlib import Path

import pytest

from capsjax import Squash, create_routing, list_routings, routing
from capsjax.routing import Dynamic, DynamicPrior


def test_names_are_listed_in_order_and_type_checkers_know_them():
    assert list_routings() == sorted(list_routings())
    assert list_routings() == list(typing.get_args(routing.RoutingName))
    assert routing.RoutingName in typing.get_args(routing.AnyRouting)
    assert {"dynamic", "dynamic-prior"} <= set(list_routings())


@pytest.mark.parametrize("name", list_routings())
def test_a_name_is_that_of_its_class_which_can_be_compared_and_hashed(name):
    made = create_routing(name)
    assert type(made).__name__.lower() == name.replace("-", "")
    assert getattr(routing, type(made).__name__) is type(made)
    assert type(made).__name__ in routing.__all__
    assert create_routing(name) == made
    assert hash(create_routing(name)) == hash(made)


def test_options_as_json_has_them():
    values = {
        "iterations": 4,
        "softmax_over": "in",
        "shared_logits": True,
        "shared_axes": ["data"],
        "squash": {"axis": "element", "epsilon": 1e-8},
    }
    expected = Dynamic(
        4,
        softmax_over="in",
        shared_logits=True,
        shared_axes=("data",),
        squash=Squash("element", 1e-8),
    )
    assert create_routing("dynamic", **values) == expected
    assert create_routing("dynamic-prior", **values) == DynamicPrior(**vars(expected))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("em2", {}, "unknown routing 'em2', choose from: dynamic, dynamic-bias"),
        ("dynamic", {"passes": 3}, "routing 'dynamic' has no option 'passes', choose from: iter"),
        ("dynamic-prior", {"routing": 1}, "routing 'dynamic-prior' has no option 'routing'"),
        ("dynamic", {"iterations": "3"}, "at least 1, not '3'"),
        ("dynamic", {"squash": {"eps": 1}}, "squash has no option 'eps', choose from: axis"),
    ],
)
def test_wrong_names_and_values_list_the_right_ones(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_routing(name, **options)


def test_every_routing_is_in_the_table_of_routings():
    lines = (Path(__file__).parents[3] / "docs" / "routings.md").read_text().splitlines()
    rows = [line.split("|")[1].strip().strip("`") for line in lines if line.startswith("| `")]
    assert rows == sorted(rows)
    assert set(list_routings()) <= set(rows)
