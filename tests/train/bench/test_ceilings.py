import jax
import pytest

from train.bench import ceilings
from train.bench.ceilings import measure_machine
from train.bench.timing import Rounds
from train.system.errors import UserError


@pytest.mark.parametrize(("seconds", "side"), [(0.01, 64), (0.25, 32)])
def test_ceilings_are_those_of_all_devices(monkeypatch, seconds, side):
    ran = []

    def take(run, rounds):
        run(1)
        ran.append(rounds)
        return [2 * seconds, seconds]

    monkeypatch.setattr(ceilings, "time_rounds", take)
    monkeypatch.setattr(ceilings, "_SIDES", (32, 64))
    monkeypatch.setattr(ceilings, "_BYTES", 2**16)
    found = measure_machine(["float32", "bfloat16"], 2, Rounds(2, 1.0))
    # Products grow until one takes long; each device does one in the time of a repetition.
    product = 2 * side**3 * 2 / seconds
    assert found["ceilings"] == {
        "matrix_flops": {"float32": product, "bfloat16": product},
        "memory_bytes": 2 * 2**16 * 2 / seconds,
    }
    assert found["devices"] == 2
    assert (found["device_kind"], found["platform"]) == (jax.devices()[0].device_kind, "cpu")
    assert ran == [Rounds(2, 1.0)] * (3 if side == 32 else 5)


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match="--devices is 9"):
        measure_machine(["float32"], 9, Rounds())
