import pytest

from tests.train.bench.conftest import make_row
from train.bench.figures import draw_all
from train.bench.growth import growths


@pytest.mark.parametrize("parts", [True, False])
def test_there_is_a_picture_of_everything_that_grows(tmp_path, failed, parts):
    changes = {} if parts else {"parts": []}
    rows = [
        *(make_row(batch_size=b, dtype=d, **changes) for b in (2, 4) for d in ("float32", "bf")),
        *(make_row(batch_size=2, primary_capsules=c, **changes) for c in (32, 64)),
        failed,
    ]
    folder = tmp_path / "new" / "figures"
    written = draw_all(folder, rows, growths(rows), "title")
    names = {"parts.png", "batch.png", "capsules.png"}
    assert {path.name for path in written} == (names if parts else names - {"parts.png"})
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")
