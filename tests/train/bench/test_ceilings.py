import jax

from train.bench import ceilings
from train.bench.ceilings import measure_ceilings


def test_both_ceilings_are_those_of_all_devices(monkeypatch):
    monkeypatch.setattr(ceilings, "_SIDES", (32, 64))
    monkeypatch.setattr(ceilings, "_BYTES", 2**16)
    found = measure_ceilings(
        jax.devices()[:2], ["float32", "bfloat16"], repetitions=2, seconds=1e-3
    )
    assert set(found.matrix_flops) == {"float32", "bfloat16"}
    # A machine between an abacus and a data centre.
    assert all(1e5 < rate < 1e18 for rate in (*found.matrix_flops.values(), found.memory_bytes))
