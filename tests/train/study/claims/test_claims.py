"""Every claim that there is."""

import json
from typing import get_args

import pytest

from capsjax.models import published_options
from tests.train.conftest import ROOT
from train.config.config_file import completed
from train.config.fit_config import FitConfig
from train.learn.network import structure
from train.study.claims import get_claim, list_claims
from train.study.trial.definition import Arm, Budget
from train.study.trial.trial import _networks, _tries
from train.system.errors import UserError

SIZES = {
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "mnist-40x40": ((40, 40, 1), 10),
    "multi_mnist": ((36, 36, 1), 10),
    "smallnorb-azimuth": ((96, 96, 2), 5),
    "smallnorb-elevation": ((96, 96, 2), 5),
}
"""By data set the shape of an image and the number of classes."""


@pytest.mark.parametrize("budget", get_args(Budget))
@pytest.mark.parametrize("name", list_claims())
def test_what_is_compared_is_there_and_trained_with_equal_care(name, budget):
    claim = get_claim(name)
    arms, quantities = claim.arms(budget), [quantity.name for quantity in claim.quantities]
    names = [arm.name for arm in arms]
    assert len(set(names)) == len({arm.slug for arm in arms}) == len(arms)
    for contrast in claim.contrasts:
        assert {contrast.less, contrast.more} <= set(names)
        assert contrast.quantity in quantities
    for arm in arms:
        assert arm.paper.keys() <= set(quantities)
        structure(arm.config, *SIZES[arm.config.data.dataset])  # it can be built
    for field in ("batch_size", "epochs", "steps", "train_examples", "max_shift", "ema_decay"):
        of_dataset = {(arm.config.data.dataset, arm.config.value(field)) for arm in arms}
        assert len(of_dataset) == len({arm.config.data.dataset for arm in arms}), field


@pytest.mark.parametrize(
    "cells",
    sorted((ROOT / "docs" / "results").glob("claims-*/cells")),
    ids=lambda cells: cells.parent.name,
)
def test_what_was_measured_is_still_of_the_claim(cells):
    """So that a recipe which changes leaves the networks of published claims as they were."""
    _, name, budget = cells.parent.name.split("-")
    claim, files = get_claim(name), {file.stem: file for file in cells.glob("*.json")}
    for arm in claim.arms(budget):
        networks = _networks(claim, arm, seeds=len(files), data_dir=None)
        for job in [*_tries(arm), *networks]:
            if (file := files.pop(job.slug, None)) is None:
                continue
            measured = completed(json.loads(file.read_text())["config"])
            differing = {k for k, value in job.config.flat().items() if measured[k] != value}
            assert differing <= ({"learning_rate"} if job in networks else set()), file
    assert not files


def test_networks_without_routing_differ_from_capsnet_in_what_they_are_called_after():
    cnn, reconstructing, capsnet = (arm.config for arm in get_claim("attacks").arms("medium"))
    assert cnn.schedule.learning_rate == reconstructing.schedule.learning_rate == 0.001  # Adam's
    assert [c.objective.loss for c in (cnn, reconstructing)] == ["cross_entropy", "margin"]
    assert "decoder_hidden" not in cnn.model.options
    for option in ("class_dim", "decoder_hidden"):
        of_capsnet = capsnet.model.options.get(option, published_options("capsnet")[option])
        assert reconstructing.model.options[option] == of_capsnet
    squash, margin, decoder = (get_claim("robust").arms("medium")[n].config for n in (1, 2, 3))
    assert "decoder_hidden" not in {*squash.model.options, *margin.model.options}
    assert decoder.model.options["decoder_hidden"]


def test_the_papers_budget_has_the_papers_networks():
    for arm in get_claim("mnist").arms("paper"):
        expected = {} if "no reconstruction" not in arm.name else {"decoder_hidden": None}
        assert arm.config.model.options == expected
        assert arm.config.data.train_examples is None
        assert arm.config.schedule.epochs == 50
    iterations = [
        arm.config.model.routing_iterations for arm in get_claim("mnist").arms("paper")[1:]
    ]
    assert iterations == [1, 1, 3, 3]


def test_a_folder_is_named_after_its_arm():
    assert Arm("CapsNet, 3 iterations (EM)", FitConfig.of()).slug == "capsnet-3-iterations-em"


def test_a_claim_that_does_not_exist():
    with pytest.raises(UserError, match="unknown claim 'rotation', choose from: affine, attacks"):
        get_claim("rotation")
