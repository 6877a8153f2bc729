import subprocess
import sys

import jax

from tests.train.conftest import ROOT
from train.system.machine import describe_machine, physical_bytes, process_peak_bytes


def test_a_machine_has_versions_and_memory():
    here = describe_machine(["jax", "no-such-package"])
    assert here["jax"] == jax.__version__
    assert here["no-such-package"] is None
    assert 10**7 < process_peak_bytes() < physical_bytes()


def test_the_peak_knows_what_is_gone_again():
    """In a new process, not begun by this one, whose peak would be this one's until then."""
    code = (
        "from train.system.machine import process_peak_bytes as peak; before = peak(); "
        "len(b'1' * (before + 10**8)); print(peak() - before)"
    )
    words = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    grown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(grown.stdout) >= 10**8
