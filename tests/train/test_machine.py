import jax
import numpy as np

from train.machine import describe_machine, physical_bytes, process_peak_bytes


def test_a_machine_has_versions_and_memory():
    here = describe_machine(["jax", "no-such-package"])
    assert here["jax"] == jax.__version__
    assert here["no-such-package"] is None
    assert 10**7 < process_peak_bytes() < physical_bytes()


def test_the_peak_knows_what_is_gone_again():
    before = process_peak_bytes()
    size = before + 10**8 - np.ones(10**7).nbytes  # more than ever before, so it has to show
    np.ones(size // 8).sum()
    assert process_peak_bytes() >= before + 5 * 10**7
