"""Models by name, from the plain values of a configuration."""

from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx

from capsjax import (
    CapsNet,
    Squash,
    create_model,
    create_routing,
    list_models,
    list_routings,
    model_options,
)
from capsjax.models import published_options, published_routing

SMALL = {
    "image_shape": [9, 9, 1],
    "num_classes": 3,
    "conv_features": 4,
    "conv_kernel": 3,
    "primary_types": 2,
    "primary_dim": 3,
    "primary_kernel": 3,
}


def small(**options):
    return nnx.eval_shape(lambda: create_model("capsnet", rngs=nnx.Rngs(0), **{**SMALL, **options}))


def test_names_are_listed_in_order():
    assert list_models() == sorted(list_models())
    assert "capsnet" in list_models()


def test_options_as_json_has_them():
    model = small(
        primary_order="flat",
        primary_squash={"axis": "capsules", "epsilon": 1e-8},
        decoder_hidden=[5, 6],
        decoder_combine="sum",
        dtype="bfloat16",
        param_dtype="float32",
        routing=create_routing("dynamic-prior", squash={"axis": "element"}),
        routing_implementation="xla",
    )
    assert isinstance(model, CapsNet)
    assert model.primary_caps.order == "flat"
    assert model.primary_caps.squash == Squash("capsules", 1e-8)
    assert model.decoder.layers[0].kernel.shape == (16, 5)
    assert model.class_caps.routing.prior.shape == (18, 3)
    assert model.class_caps.implementation == "xla"
    assert model.class_caps.routing.settings.squash == Squash("element")
    assert model.features.conv.dtype == jnp.bfloat16
    assert model.features.conv.kernel.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capsules": 3}, "model 'capsnet' has no option 'capsules', choose from: conv_features"),
        ({"self": 3}, "model 'capsnet' has no option 'self'"),
        ({"num_classes": 0}, "num_classes must be an integer of at least 1, not 0"),
        ({"conv_features": 0}, "conv_features must be an integer of at least 1, not 0"),
        ({"primary_dim": -1}, "primary_dim must be an integer of at least 1, not -1"),
        ({"class_dim": 16.0}, "class_dim must be an integer of at least 1, not 16.0"),
        ({"primary_types": "8"}, "primary_types must be an integer of at least 1, not '8'"),
        ({"conv_stride": True}, "conv_stride must be an integer of at least 1, not True"),
        ({"image_shape": [9, 9]}, r"image_shape is \(height, width, channels\), not \[9, 9\]"),
        ({"image_shape": [9, 0, 1]}, "each value of image_shape must be .* at least 1, not 0"),
        ({"image_shape": 9}, "image_shape must be a sequence of integers of at least 1, not 9"),
        ({"image_shape": [4, 9, 1]}, "a 3x3 kernel does not fit on an input of 2x7"),
        ({"decoder_hidden": 512}, "decoder_hidden must be a sequence of integers"),
        ({"decoder_hidden": [512, 0]}, "each value of decoder_hidden .* at least 1, not 0"),
        ({"decoder_combine": "mean"}, "unknown decoder_combine 'mean', choose from: concat, sum"),
        ({"primary_order": "D"}, "unknown primary_order 'D', choose from: position_"),
        ({"primary_squash": {"eps": 1}}, "squash has no option 'eps', choose from: axis"),
        ({"primary_squash": {"epsilon": 2}}, "Squash: epsilon must be a number from 0 to 1"),
        ({"routing": 3}, r"such as create_routing\('dynamic'\), not 3"),
        (
            {"routing": "dynamics"},
            "unknown routing 'dynamics', choose from: dynamic, dynamic-bias",
        ),
        (
            {"routing_implementation": "cuda"},
            "unknown routing_implementation 'cuda', choose from",
        ),
        ({"dtype": "float33"}, "dtype must be a floating dtype such as 'float32', not 'float33'"),
        ({"param_dtype": "int32"}, "param_dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_names_and_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_a_model_is_published_with_a_routing_or_with_none():
    published = {"capsnet": "dynamic", "aff_capsnet": "uniform", "cnn": None}
    assert {name: published_routing(name) for name in published} == published
    for name in list_models():
        assert published_routing(name) in (None, *list_routings()), name


def test_published_options_are_those_of_the_constructor_and_of_what_fixes_some():
    options = published_options("aff_capsnet")
    assert options.keys() == set(model_options("aff_capsnet"))
    assert (options["shared_transform"], options["conv_kernel"]) == (True, 9)
    assert published_options("capsnet")["shared_transform"] is False


def test_every_model_has_a_row_in_the_docs():
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    for name in list_models():
        assert f"| `{name}` |" in text, name


def test_unknown_models_list_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown model 'capsnet2', choose from: aff_capsnet, attention_capsnet"
    ):
        create_model("capsnet2", image_shape=(9, 9, 1), num_classes=3, rngs=nnx.Rngs(0))
