"""A user's module as a contender: how it is called, and what it is trained by."""

import pytest
import torch

from parity.bench.contenders import chosen_contenders, own_module
from parity.bench.own_module import OwnModule
from parity.bench.work import make_work
from parity.reference import CapsNet
from train.system.errors import UserError

FILE = """
import torch
from torch import nn

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.lengths, self.draw = nn.Linear(784, 10), nn.Linear(10, 784)

    def forward(self, images, one_hot):
        lengths = self.lengths(images.reshape(len(images), 784)).sigmoid()
        return lengths, self.draw(lengths * one_hot)

class Poses(nn.Module):
    def __init__(self):
        super().__init__()
        self.poses = nn.Linear(784, 160)

    def forward(self, images):
        assert images.shape[1:] == (1, 28, 28)
        return {"poses": self.poses(images.flatten(1)).view(-1, 10, 16) / 10}

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, images):
        lengths = self.scale * images.flatten(1)[:, :10]
        return lengths, 2 * lengths

class Nothing(nn.Module):
    def forward(self, images):
        return images.mean()
"""


@pytest.fixture
def contend(tmp_path):
    """Makes a contender of a class of that file, for CapsNet's work on 4 images."""
    (tmp_path / "net.py").write_text(FILE)
    threads = torch.get_num_threads()

    def make(name, output=None):
        torch.manual_seed(0)
        work = make_work("capsnet", 4)
        return own_module(work, spec=f"{tmp_path / 'net.py'}:{name}", output=output)

    yield make
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("Both", "given NCHW images and one-hot labels; 0 as lengths, trained by the loss of"),
        ("Poses", "given NCHW images; poses as poses, trained by the loss without reconstruction"),
    ],
)
def test_a_module_trains_and_infers(contend, name, note):
    contender = contend(name)
    assert contender.note.startswith(note)
    first = contender.train(1)
    contender.forward(1)
    assert 0 < contender.train(5) < first


def test_a_loss_takes_lengths_and_what_is_as_large_as_an_image(contend, tmp_path):
    contend("Both")
    work = make_work("capsnet", 4)
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 9])
    both, poses = (
        OwnModule(f"{tmp_path / 'net.py'}:{name}", work, CapsNet) for name in ("Both", "Poses")
    )
    stages = both(images, labels)
    lengths, drawn = both.module(images, torch.eye(10)[labels])
    assert torch.equal(stages["lengths"], lengths)
    assert torch.equal(stages["reconstruction"], drawn)
    assert {"margin", "reconstruction", "total"} == both.losses(stages, images, labels).keys()
    stages = poses(images, labels)
    assert torch.equal(stages["lengths"], poses.module(images)["poses"].norm(dim=-1))
    assert {"margin", "total"} == poses.losses(stages, images, labels).keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Twice", "more than one output of the module has the shape of capsule lengths"),
        ("Nothing", "no output of the module has the shape of capsule lengths"),
        ("Missing", "net.py has no Missing; there is Both, Poses, Twice, Nothing"),
    ],
)
def test_what_cannot_take_part_is_told_in_a_sentence(contend, name, message):
    with pytest.raises(UserError, match=message):
        contend(name)


def test_of_several_outputs_one_can_be_chosen(contend):
    assert "; 1 as lengths" in contend("Twice", "1").note


def test_it_comes_first_and_beside_the_others():
    assert list(chosen_contenders(["capsjax", "torch-fast"], "net.py:Net")) == [
        "net.py:Net",
        "capsjax",
        "torch-fast",
    ]
