"""Every routing and every model has a reference."""

import pytest

import capsjax
from parity.__main__ import main
from parity.check.pairs import SIZES
from parity.check.subjects import all_subjects, find_subject
from parity.reference.models import MODELS
from parity.reference.routing import ROUTINGS


def test_every_routing_and_every_model_is_proven():
    assert sorted(ROUTINGS) == capsjax.list_routings()
    assert sorted(MODELS) == capsjax.list_models()
    assert len(all_subjects()) == len(ROUTINGS) + len(MODELS)


@pytest.mark.parametrize("sizes", [None, ("tiny",)])
def test_a_layout_is_compared_in_the_sizes_that_are_asked_for(sizes):
    subject = find_subject("layout", "gram-ai", sizes)
    assert set(subject.sizes) == set(sizes or SIZES)
    cases = {(case.size, case.trained) for case in subject.cases}
    assert cases == {(size, trained) for size in sizes or SIZES for trained in (False, True)}


def test_the_sizes_of_another_network_cannot_be_chosen(capsys):
    assert main(["check", "--layout", "yl-1993", "--sizes", "paper"]) == 2
    assert "--layout yl-1993 compares tiny networks: leave --sizes out" in capsys.readouterr().err
    assert main(["check", "--layout", "yl-1994"]) == 2
    assert "choose one of adambielski, cedrickchee, efficient-capsnet" in capsys.readouterr().err
