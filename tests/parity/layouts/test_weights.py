"""Every parameter is replaced, or none."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from parity.check.pairs import SIZES
from parity.layouts import weights
from parity.layouts.match import match
from parity.layouts.table import get_layout
from parity.reference import CapsNet as ReferenceCapsNet


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    reference = ReferenceCapsNet(**SIZES["tiny"])
    return {name: tensor.numpy() for name, tensor in reference.state_dict().items()}


@pytest.fixture
def model() -> nnx.Module:
    return nnx.eval_shape(lambda: capsjax.CapsNet(**SIZES["tiny"], rngs=nnx.Rngs(0)))


def to_capsjax(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return match(get_layout("reference"), state).to_capsjax(state)


def test_every_tensor_reaches_its_parameter(state: dict, model: nnx.Module):
    weights.load(model, to_capsjax(state))
    params = weights.by_name(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert len(params) == len(state)
    np.testing.assert_array_equal(
        params["features.conv.kernel"][2, 1, 0], state["conv1.weight"][:, 0, 2, 1]
    )
    np.testing.assert_array_equal(params["decoder.layers.2.kernel"], state["decoder.4.weight"].T)
    np.testing.assert_array_equal(params["class_caps.kernel"], state["class_caps.weight"])
    assert all(isinstance(value, jnp.ndarray) for value in params.values())


def test_parameters_of_another_shape_are_refused(state: dict, model: nnx.Module):
    values = to_capsjax(state)
    values["features.conv.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"features\.conv\.bias is \(8,\), not \(3,\)"):
        weights.load(model, values)
    del values["features.conv.bias"]
    with pytest.raises(ValueError, match=r"differ in features\.conv\.bias"):
        weights.load(model, values)
