"""Building blocks of the PyTorch references."""

import pytest
import torch
from torch import nn

from parity.reference import _parts

pytestmark = pytest.mark.torch


def test_window_counts_of_the_paper_and_of_an_oblong_image():
    assert _parts.window_counts((28, 28, 1), 9, 9, 2) == (6, 6)
    assert _parts.window_counts((9, 8, 2), 3, 3, 2) == (3, 2)
    assert _parts.window_counts((17, 17, 1), 9, 9, 2) == (1, 1)


@pytest.mark.parametrize("shape", [(16, 28, 1), (28, 16, 1)])
def test_an_image_smaller_than_the_kernels_is_refused(shape):
    with pytest.raises(ValueError, match="too small"):
        _parts.window_counts(shape, 9, 9, 2)


def test_an_image_shape_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"\(height, width, channels\)"):
        _parts.window_counts((28, 28), 9, 9, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_length(dtype):
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [3e30, 4e30]], dtype=dtype)
    expected = torch.tensor([5.0, 0.0, 1e-30, 5e30], dtype=dtype)
    torch.testing.assert_close(_parts.length(v), expected, rtol=1e-6, atol=0)


def test_the_gradient_of_length_is_the_direction_and_zero_at_zero():
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    _parts.length(v).sum().backward()
    torch.testing.assert_close(v.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_class_mask_is_at_the_label_or_at_the_first_of_the_longest():
    lengths = torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.3, 0.4]])
    labels = torch.tensor([2, 0])
    assert _parts.class_mask(lengths, labels).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert _parts.class_mask(lengths, None).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_images_are_flattened_with_the_channel_last():
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    flat = _parts.flatten_images(images)
    for y, x, channel in [(0, 0, 1), (2, 4, 2), (3, 1, 0)]:
        assert flat[1, (y * 5 + x) * 3 + channel] == images[1, channel, y, x]


def test_both_decoders_compute_the_same_under_different_names():
    layers = _parts.dense_layers(3, 4, 5, 6)
    named, sequential = _parts.NamedDecoder("fc", layers), _parts.sequential_decoder(layers)
    x = torch.randn(2, 3)
    hidden = (x @ layers[0].weight.T + layers[0].bias).clamp(min=0)
    hidden = (hidden @ layers[1].weight.T + layers[1].bias).clamp(min=0)
    expected = 1 / (1 + torch.exp(-(hidden @ layers[2].weight.T + layers[2].bias)))
    torch.testing.assert_close(named(x), expected)
    torch.testing.assert_close(sequential(x), expected)
    weights = [f"{n}.weight" for n in ("fc1", "fc2", "fc3")]
    assert [key for key in named.state_dict() if key.endswith("weight")] == weights
    weights = [f"{n}.weight" for n in (0, 2, 4)]
    assert [key for key in sequential.state_dict() if key.endswith("weight")] == weights


def test_group_only_gives_names():
    module = _parts.group(W=nn.Parameter(torch.zeros(1)), inner=_parts.group(fc=nn.Linear(1, 1)))
    assert set(module.state_dict()) == {"W", "inner.fc.weight", "inner.fc.bias"}
