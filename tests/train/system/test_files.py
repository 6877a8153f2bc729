import errno
import json

import pytest

from train.system.errors import UserError
from train.system.files import finite_or_none, staged, write_json, writing


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_and_a_missing_permission_are_told(tmp_path, number):
    with (
        pytest.raises(UserError, match="cannot be written .*: make room or give permission"),
        writing(tmp_path),
    ):
        raise OSError(number, "the system's words")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, {"x": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError])
def test_a_file_that_is_written_in_pieces_is_whole_or_not_there(tmp_path, end):
    path = tmp_path / "rows.csv"
    with pytest.raises(end), staged(path):
        raise end
    assert not list(tmp_path.iterdir())
    with staged(path) as file:
        file.write(b"1\n")
        file.write(b"2\n")
        assert not path.exists()
    assert path.read_bytes() == b"1\n2\n"


def test_json_has_null_for_what_is_no_number():
    assert [finite_or_none(x) for x in (1.5, float("nan"), float("inf"))] == [1.5, None, None]
