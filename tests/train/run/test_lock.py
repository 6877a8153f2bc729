import subprocess
import sys

import pytest

from tests.train.conftest import ROOT
from train.run.lock import locked
from train.system.errors import UserError


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path):
    program = (
        "import sys, pathlib; from train.run.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout.readline() == b"in\n"
        with (
            pytest.raises(UserError, match="another process is training in .*: wait for it"),
            locked(tmp_path),
        ):
            pass
    finally:
        other.kill()  # as a crash would end it
        other.communicate()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_context_whatever_ends_that(tmp_path):
    def fail():
        with locked(tmp_path):
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
