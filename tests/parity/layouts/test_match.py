"""The layouts that come with the program, laid over the networks they are of."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from parity import weights
from parity.importing import configure, describe_dataset
from parity.layouts import builtin_layouts, get_layout, match, match_parameters
from parity.reference import REFERENCES
from tests.parity.layouts.dialects import SIZES, build, shapes_of
from train.network import build_model, count_parameters

every_layout = pytest.mark.parametrize("name", REFERENCES)


def paper(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return REFERENCES[name]()


def test_there_is_a_layout_for_every_reference():
    assert {layout.name for layout in builtin_layouts()} == set(REFERENCES)


@every_layout
@pytest.mark.parametrize("hidden", [(7, 11), (7,), None])
def test_sizes_are_read_off_the_tensors(name, hidden):
    found = match(get_layout(name), shapes_of(build(name, decoder_hidden=hidden)))
    assert found.fits, found.problems()
    options = found.model_options()
    for option in options:
        if option != "decoder_hidden":
            assert options[option] == SIZES[option], option
    assert options["decoder_hidden"] == (None if hidden is None else list(hidden))
    assert found.pixels == (None if hidden is None else 64)
    assert (found.sizes["i"], found.sizes["j"], found.sizes["c"]) == (12, 10, 1)


@every_layout
def test_only_its_own_layout_fits_a_network(name):
    for model in (paper(name), build(name), build(name, decoder_hidden=None)):
        fitting = [found.name for found in builtin_layouts() if match(found, shapes_of(model)).fits]
        assert fitting == [name]


@every_layout
def test_the_published_size_gives_the_published_shapes(name):
    found = match(get_layout(name), shapes_of(paper(name)))
    images = describe_dataset("mnist")
    config = configure(found, "mnist", images, lambda config: config)
    model = nnx.eval_shape(lambda: build_model(config, images.shape, 10))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    shapes = {key: value.shape for key, value in weights.by_name(params).items()}
    assert shapes == {entry.target: entry.target_shape for entry in found.entries}
    assert count_parameters(params) == sum(p.numel() for p in paper(name).parameters())
    assert found.sizes["i"] == 1152


@every_layout
def test_both_directions_know_the_same(name):
    model = build(name)
    forward = match(get_layout(name), shapes_of(model))
    back = match_parameters(
        get_layout(name), {entry.target: entry.target_shape for entry in forward.entries}
    )
    assert back.fits
    assert back.sizes == forward.sizes
    assert back.entries == forward.entries
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    again = back.to_source(forward.to_capsjax(tensors))
    assert again.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(again[key], value)


@every_layout
def test_class_matrices_make_the_votes_of_the_reference(name):
    model = build(name)
    found = match(get_layout(name), shapes_of(model))
    kernel = found.to_capsjax({k: v.numpy() for k, v in model.state_dict().items()})[
        "class_caps.kernel"
    ]
    with torch.no_grad():
        stages = model(torch.rand(2, 1, 8, 8))
    votes = jnp.einsum("ijdk,bik->bijd", kernel, stages["primary_u"].numpy())
    np.testing.assert_allclose(votes, stages["u_hat"].numpy(), rtol=1e-5, atol=1e-6)


def problems(name: str, **changes: tuple[int, ...] | None) -> str:
    shapes = shapes_of(build(name))
    for key, value in changes.items():
        key = key.replace("__", ".")
        shapes.pop(key) if value is None else shapes.update({key: value})
    found = match(get_layout(name), shapes)
    assert not found.fits
    return "\n".join(found.problems())


def test_a_convolution_too_few_is_missing_and_one_too_many_left_over():
    text = problems(
        "gram-ai",
        primary_capsules__capsules__3__weight=None,
        primary_capsules__capsules__3__bias=None,
    )
    assert text == ("missing: primary_capsules.capsules.3.bias, primary_capsules.capsules.3.weight")
    text = problems("gram-ai", primary_capsules__capsules__4__bias=(3,))
    assert text == "not in the layout: primary_capsules.capsules.4.bias"


def test_the_odd_one_out_is_misshapen():
    text = problems("gram-ai", primary_capsules__capsules__1__weight=(3, 6, 2, 2))
    assert text == (
        "wrong shape: primary_capsules.capsules.1.weight is [3, 6, 2, 2], expected [3, 5, 2, 2] "
        "(t f y x)"
    )
    text = problems("reference", conv1__weight=(5, 1, 3))
    assert "conv1.weight is [5, 1, 3], which does not go with the others (f c y x)" in text
    text = problems("reference", primary__weight=(13, 5, 2, 2), primary__bias=(13,))
    assert "primary.weight is [13, 5, 2, 2], which does not go with the others" in text
    text = problems("reference", conv1__weight=(5, 1, 3, 4))
    assert "conv1.weight has a kernel of 3x4, which is not square" in text
    text = problems("laubonghaudoi", Decoder__fc1__weight=(7, 60))
    assert "Decoder.fc1.weight takes 60 numbers, expected 6, which is d" in text


def test_everything_is_told_at_once():
    text = problems(
        "adambielski",
        capsnet__conv1__bias=None,
        reconstruction_net__fc2__bias=(12,),
        something=(1,),
    )
    assert text.splitlines() == [
        "missing: capsnet.conv1.bias",
        "not in the layout: something",
        "wrong shape: reconstruction_net.fc2.bias is [12], expected [11] (out)",
    ]
