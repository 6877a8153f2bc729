"""The layouts that come with the program, laid over the networks they are of."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from parity.check.pairs import learned
from parity.layouts import weights
from parity.layouts.data_sets import configure
from parity.layouts.match import match, match_parameters
from parity.layouts.table import builtin_layouts, get_layout
from parity.reference import OTHERS, REFERENCES
from tests.parity.layouts.dialects import OTHER_SIZES, SIZES, build
from tests.tolerance import assert_close
from train.data.catalog import SOURCES
from train.learn.network import build_model, count_parameters

IN_CAPSULES = {"efficient-capsnet": 16, "yl-1993": None}  # the latter's have matrices by type
PUBLIC = {**REFERENCES, **OTHERS}
every_capsnet = pytest.mark.parametrize("name", REFERENCES)
every_layout = pytest.mark.parametrize("name", PUBLIC)


def paper(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return PUBLIC[name]()


def floats(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As `learned`, of tensors without values too."""
    return {name: t for name, t in model.state_dict().items() if t.is_floating_point()}


def test_there_is_a_layout_for_every_reference():
    assert {layout.name for layout in builtin_layouts()} == set(PUBLIC)


@every_capsnet
@pytest.mark.parametrize("hidden", [(7, 11), (7,), None])
def test_sizes_are_read_off_the_tensors(name, hidden):
    found = match(get_layout(name), learned(build(name, decoder_hidden=hidden)))
    assert found.fits, found.problems()
    options = found.model_options()
    for option in options:
        if option != "decoder_hidden":
            assert options[option] == SIZES[option], option
    assert options["decoder_hidden"] == (None if hidden is None else list(hidden))
    assert found.pixels == (None if hidden is None else 64)
    assert (found.sizes["i"], found.sizes["j"], found.sizes["c"]) == (12, 10, 1)


@pytest.mark.parametrize("name", OTHERS)
def test_sizes_of_other_networks_are_read_off_too(name):
    sizes = OTHER_SIZES[name]
    found = match(get_layout(name), learned(build(name)))
    assert found.fits, found.problems()
    options = found.model_options()
    assert options == {
        option: list(sizes[option]) if isinstance(sizes[option], tuple) else sizes[option]
        for option in options
    }
    assert options.keys() == sizes.keys() - {"image_shape", "num_classes"}
    assert (found.sizes["j"], found.sizes["c"]) == (10, 1)
    assert found.pixels == (64 if "decoder_hidden" in sizes else None)


def test_a_network_with_more_convolutions_and_no_decoder():
    more = {"features": (5, 6, 12), "kernel_sizes": (3, 2, 2), "strides": (1, 1, 2)}
    model = build("efficient-capsnet", **more, primary_kernel=2, decoder_hidden=None)
    assert "conv3.weight" in model.state_dict()
    found = match(get_layout("efficient-capsnet"), learned(model))
    assert found.fits, found.problems()
    assert found.model_options()["features"] == [5, 6, 12]
    assert found.model_options()["decoder_hidden"] is None


def decoders(name):
    """The sizes of a network with its decoder, and, if it has one, without."""
    has_decoder = "decoder_hidden" in OTHER_SIZES.get(name, SIZES)
    return [{}, {"decoder_hidden": None}] if has_decoder else [{}]


@every_layout
def test_only_its_own_layout_fits_a_network(name):
    for model in (paper(name), *(build(name, **decoder) for decoder in decoders(name))):
        fitting = [found.name for found in builtin_layouts() if match(found, floats(model)).fits]
        assert fitting == [name]


@every_layout
def test_the_published_size_gives_the_published_shapes(name):
    found = match(get_layout(name), floats(paper(name)))
    image_shape = SOURCES["mnist"].image_shape
    config = configure(found, "mnist", image_shape, 10)
    model = nnx.eval_shape(lambda: build_model(config, image_shape, 10))
    weights.require_shapes(model, found.shapes, weights.LEARNED)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert count_parameters(params) == sum(p.numel() for p in paper(name).parameters())
    assert found.sizes.get("i") == (1152 if name in REFERENCES else IN_CAPSULES[name])


@pytest.mark.parametrize(
    ("name", "decoder"), [(name, decoder) for name in PUBLIC for decoder in decoders(name)]
)
def test_both_directions_know_the_same(name, decoder):
    model = build(name, **decoder)
    forward = match(get_layout(name), learned(model))
    back = match_parameters(get_layout(name), forward.to_capsjax(learned(model)))
    assert back.fits
    assert back.sizes == forward.sizes
    assert back.entries == forward.entries
    tensors = learned(model)
    again = back.to_source(forward.to_capsjax(tensors))
    assert again.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(again[key], value)


@every_capsnet
def test_class_matrices_make_the_votes_of_the_reference(name):
    model = build(name)
    found = match(get_layout(name), learned(model))
    kernel = found.to_capsjax({k: v.numpy() for k, v in model.state_dict().items()})[
        "class_caps.kernel"
    ]
    with torch.no_grad():
        stages = model(torch.rand(2, 1, 8, 8))
    votes = jnp.einsum("ijdk,bik->bijd", kernel, stages["primary_u"].numpy())
    assert_close(votes, stages["u_hat"].numpy(), reduction_length=4)


@pytest.mark.parametrize("name", ["xifengguo", "efficient-capsnet", "xifengguo-keras"])
def test_what_a_decoder_draws_of_several_channels_has_the_order_of_its_framework(name):
    tensors = learned(build(name, image_shape=(8, 9, 3)))
    found = match(get_layout(name), tensors)
    assert found.fits, found.problems()
    arrays = found.to_capsjax(tensors)
    ours, theirs = (
        next(v for v in of.values() if v.shape == (8 * 9 * 3,)) for of in (arrays, tensors)
    )
    is_keras = name.endswith("keras")
    images = theirs.reshape(8, 9, 3) if is_keras else theirs.reshape(3, 8, 9).transpose(1, 2, 0)
    np.testing.assert_array_equal(ours.reshape(8, 9, 3), images)


def test_the_filters_of_activations_come_after_those_of_poses():
    model = build("yl-1993")
    found = match(get_layout("yl-1993"), learned(model))
    parameters = found.to_capsjax(learned(model))
    pose, a = model.primary_caps.pose, model.primary_caps.a
    expected = torch.cat([pose.weight, a.weight]).detach()[:, :, 0, 0].T
    np.testing.assert_array_equal(parameters["primary_caps.pose.kernel"][0, 0], expected)
    biases = torch.cat([pose.bias, a.bias]).detach()
    np.testing.assert_array_equal(parameters["primary_caps.pose.bias"], biases)


def test_of_gradients_there_are_none_for_statistics():
    model = build("yl-1993")
    found = match(get_layout("yl-1993"), learned(model))
    of_parameters = {name: value.detach().numpy() for name, value in model.named_parameters()}
    left_out = found.shapes.keys() - found.to_capsjax(of_parameters).keys()
    assert left_out == {"features.norm.mean", "features.norm.var"}


def problems(name: str, **changes: tuple[int, ...] | None) -> str:
    tensors = learned(build(name))
    for key, shape in changes.items():
        key = key.replace("__", ".")
        tensors.pop(key) if shape is None else tensors.update({key: np.zeros(shape)})
    found = match(get_layout(name), tensors)
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


def test_names_that_are_only_nearly_those_of_a_layout_are_left_over():
    text = problems("gram-ai", decoder__1__bias=(7,), decoder__00__bias=(7,), conv1xbias=(5,))
    assert text == "not in the layout: conv1xbias, decoder.00.bias, decoder.1.bias"
    text = problems("laubonghaudoi", Decoder__fc0__bias=(7,))
    assert text == "not in the layout: Decoder.fc0.bias"


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


def test_what_lists_of_modules_lack():
    text = problems("efficient-capsnet", efficient_capsnet__bn4__running_var=None)
    assert text == "missing: efficient_capsnet.bn4.running_var"
    text = problems("efficient-capsnet", efficient_capsnet__conv5__bias=(12,))
    assert text.startswith("missing: efficient_capsnet.bn5.bias, efficient_capsnet.bn5.running")
    text = problems("efficient-capsnet", efficient_capsnet__bn2__weight=(7,))
    assert text == ("wrong shape: efficient_capsnet.bn2.weight is [7], expected [6] (out)")
    names = [f"conv_caps{n}.{what}" for n in (1, 2) for what in ("beta_a", "beta_u", "weights")]
    text = problems("yl-1993", **{name.replace(".", "__"): None for name in names})
    assert text.splitlines()[0] == f"missing: {', '.join(names[:3])}"


def test_a_window_that_is_no_square():
    text = problems("yl-1993", conv_caps1__weights=(1, 15, 4, 2, 2))
    assert text == (
        "wrong shape: conv_caps1.weights is [1, 15, 4, 2, 2], which does not go with the others "
        "(1 (y x in) out p q)"
    )


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
