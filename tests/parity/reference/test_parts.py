"""Building blocks of the PyTorch references, and that they import torch alone."""

import ast
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import parity.reference
from parity.reference import _parts
from tests.parity.reference.by_hand import close

FOLDER = Path(parity.reference.__file__).parent


def test_what_proves_uses_nothing_that_is_proven():
    known = {"torch", *sys.stdlib_module_names}
    files = list(FOLDER.rglob("*.py"))
    assert len(files) > 30
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                is_own = module.startswith("parity.reference")
                assert is_own or module.partition(".")[0] in known, f"{file} imports {module}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_length(dtype):
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [3e30, 4e30]], dtype=dtype)
    for row, expected in zip(v, (5.0, 0.0, 1e-30, 5e30), strict=True):
        close(_parts.length(row), torch.tensor(expected, dtype=dtype))


def test_the_gradient_of_length_is_the_direction_and_zero_at_zero():
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    _parts.length(v).sum().backward()
    close(v.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_that_of_pytorch_and_exact_where_all_numbers_are_equal(affine):
    norm = nn.BatchNorm2d(3, affine=affine).double()
    x = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    close(_parts.batch_norm(x, norm), norm(x))
    assert not _parts.batch_norm(torch.full_like(x, 0.1), norm).any()
    close(_parts.batch_norm(x, norm.eval()), norm(x), terms=1)


def test_class_mask_is_at_the_label_or_at_the_first_of_the_longest():
    lengths = torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.3, 0.4]])
    labels = torch.tensor([2, 0])
    assert _parts.class_mask(lengths, labels).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert _parts.class_mask(lengths, None).tolist() == [[0, 1, 0], [1, 0, 0]]


class Drawn(_parts.Reference):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 50, 5)
        self.up = nn.ConvTranspose2d(50, 16, 5)
        self.dense = nn.Linear(300, 200)
        self.kernel = _parts.zeros(100, 100)
        self.norm = nn.BatchNorm2d(1000)

    def deviation(self, name):
        return 0.7 if name == "kernel" else None


@pytest.mark.parametrize("biases", [True, False])
def test_weights_keep_the_size_of_activations_and_the_rest_is_drawn_as_it_is_told(biases):
    network = Drawn()
    network.draw(torch.Generator().manual_seed(0), biases=biases)
    terms = {"conv.weight": 16 * 25, "up.weight": 50 * 25, "dense.weight": 300}
    expected = {name: (2 / n) ** 0.5 for name, n in terms.items()}
    expected |= {"kernel": 0.7, "norm.weight": 0.1, "norm.bias": 0.1}
    for name, parameter in network.named_parameters():
        if name in expected:
            assert 0.9 < parameter.std() / expected[name] < 1.1
        else:
            assert parameter.any().item() is biases
    assert 0.9 < network.norm.weight.mean() < 1.1
