"""A row whose axes are in another order is named, instead of the tensors that do not go with it."""

import pytest

from parity.layouts.importing import match_state, problems
from parity.layouts.misread import misread_row
from parity.layouts.state_files import read_state
from parity.layouts.table import get_layout
from tests.parity.layouts.dialects import build, saved
from tests.parity.layouts.test_table import FOLDER


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("gram_ai", "j i k d", "i j k d"),
        ("gram_ai", "j i k d", "j i d k"),
        ("gram_ai", "f c y x", "c f y x"),
        ("gram_ai", "out in", "in out"),
        ("xifengguo", "j i d k", "i j d k"),
        ("xifengguo", "(t k) f y x", "f (t k) y x"),
        ("adambielski", "i k (j d)", "k i (j d)"),
        ("efficient_capsnet", "j i k d", "i j k d"),
        ("yl_1993", "1 b j p q", "1 j b p q"),
    ],
)
def test_the_row_that_is_misread_is_told_first(name, right, wrong, tmp_path):
    text = (FOLDER / f"{name}.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace(f'"{right} ->', f'"{wrong} ->', 1))
    path = saved(tmp_path / "w.pt", build(name.replace("_", "-")).state_dict())
    found, state = match_state(path, read_state(path), str(tmp_path / "mine.toml"))
    assert (
        f"has the axes {wrong!r}, but with {right!r} all tensors fit" in problems(found, state)[0]
    )


def test_what_is_otherwise_wrong_is_no_row(tmp_path):
    state = {name: tensor.numpy() for name, tensor in build("gram-ai").state_dict().items()}
    assert (
        misread_row(get_layout("gram-ai"), {**state, "conv1.bias": state["conv1.bias"][:3]}) is None
    )
