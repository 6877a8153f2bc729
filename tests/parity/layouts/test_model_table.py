"""What is known of a model agrees with the model itself."""

import pytest

import capsjax
from parity.layouts import names
from parity.layouts.axes import parse_axes
from parity.layouts.model_table import DECODER, MODELS, model_table, parameter_names
from parity.layouts.table import builtin_layouts
from train.config.fit_config import FitConfig

every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_it_names_parameters_that_the_model_has_with_some_layouts_options(name):
    configs = [layout.config() for layout in builtin_layouts() if layout.model == name]
    assert configs
    if name == "capsnet":
        configs.append(FitConfig.of(routing="dynamic-bias"))  # of the authors' own network
    of_model = set().union(*map(parameter_names, configs))
    assert {names.parameter(target) for target in model_table(name).axes} == of_model


@every_model
def test_axes_are_written_as_those_of_a_row_are_kept(name):
    for choices in model_table(name).axes.values():
        assert [parse_axes(f"{axes} -> {axes}", None).target for axes in choices] == list(choices)


@every_model
def test_arguments_are_the_models_and_read_off_or_compared_but_not_both(name):
    table = model_table(name)
    known = set(capsjax.model_options(name))
    assert set(table.sizes) | set(table.compared) <= known
    assert not set(table.sizes) & set(table.compared)
    assert (f"{DECODER}.{{n}}.kernel" in table.axes) == ("decoder_hidden" in known)


def test_what_sizes_are_called():
    efficient, matrix = model_table("efficient_capsnet"), model_table("matrix_capsnet")
    assert efficient.key("i", "class_caps.kernel") == "i"
    assert efficient.key("y", "convolutions.2.kernel") == "y convolutions.2"
    assert efficient.key("out", "norms.2.scale") == "convolutions 2"
    assert efficient.key("in", "convolutions.3.kernel") == "convolutions 2"
    assert efficient.key("in", "convolutions.0.kernel") == "c"
    assert efficient.key("in", f"{DECODER}.0.kernel") == f"{DECODER} -1"
    assert matrix.key("in", "conv_caps.0.kernel") == "t"


def test_sizes_as_arguments():
    sizes = {"f": 7, "y features.conv": 5, "t": 3, "p": 2, "q": 4}
    sizes |= {f"conv_caps {n}": 10 + n for n in range(3)}
    sizes |= {f"y conv_caps.{n}": n for n in range(3)}
    assert model_table("matrix_capsnet").arguments(sizes) == {
        "conv_features": 7,
        "conv_kernel": 5,
        "primary_types": 3,
        "caps_types": [10, 11, 12],
        "caps_kernels": [0, 1, 2],
        "pose_dim": 8,
    }
