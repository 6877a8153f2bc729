"""The work of a network: its published sizes on both sides."""

import pytest
import torch
from flax import nnx

import capsjax
from parity.bench.contenders import training
from parity.bench.fast import FAST
from parity.bench.work import PUBLISHED, make_work
from parity.reference import CapsNet
from parity.reference.models import MODELS
from train.learn.network import build_model, count_parameters

PARAMETERS = {
    "attention_capsnet": 1_828_817,  # Tsai et al. 2020
    "capsnet": 8_215_568,  # Sabour et al. 2017
    "deepcaps": 13_426_419,  # as its docstring counts
    "matrix_capsnet": 316_650,
}


def test_every_network_has_its_work():
    assert sorted(PUBLISHED) == capsjax.list_models()


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_contenders_have_the_published_parameters(name):
    work = make_work(name, 3)
    assert (len(work.images), work.labels.max() < work.num_classes) == (3, True)
    config, dataset = training(work)
    model = nnx.eval_shape(lambda: build_model(config, dataset.image_shape, dataset.num_classes))
    ours = count_parameters(nnx.state(model, nnx.Param))
    assert ours == PARAMETERS.get(name, ours)
    kinds = {"plain": {**MODELS, "capsnet": CapsNet}[name]} | (
        {"fast": FAST[name]} if name in FAST else {}
    )
    for kind in kinds.values():
        with torch.device("meta"):
            theirs = kind(**work.arguments)
        assert sum(parameter.numel() for parameter in theirs.parameters()) == ours


def test_iterations_are_the_published_ones_unless_others_are_given():
    assert make_work("attention_capsnet", 1).arguments["iterations"] == 2
    config, _ = training(make_work("deepcaps", 1, iterations=1))
    assert config.model.routing_iterations == 1
    assert config.model.options["grid_routing"] == capsjax.routing.Dynamic(1)
