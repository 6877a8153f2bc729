import jax
import pytest

import capsjax
from train.bench import forward
from train.bench.forward import measure_forward
from train.bench.timing import Rounds
from train.data import load_dataset
from train.presets import get_preset
from train.system.errors import DoesNotFitError, UserError


@pytest.mark.parametrize("batch", [1, 64])  # more than there are images
def test_a_pass_of_any_batch_is_measured(config, dataset, batch):
    found = measure_forward(config.changed(batch_size=batch), dataset, Rounds(2, 0.001))
    assert found["slowest"] <= found["images_per_second"] <= found["fastest"]
    assert found["images_per_second"] == pytest.approx(batch / found["batch_seconds"])
    assert min(found["predict_seconds"], found["compile_seconds"]) > 0
    assert found["memory"]["arguments"] > batch * 64  # a byte a pixel, and the weights
    assert found["memory"]["outputs"] == batch * 3 * 4  # lengths of three classes
    assert found["peak_bytes"] > 10**8
    assert found["device_kind"] == jax.devices()[0].device_kind


def test_a_batch_is_normalised_as_the_network_has_learned_to(monkeypatch):
    """Or the statistics of one image would be needed, and change the model."""

    def of_batch(*_):
        raise AssertionError("a batch is normalised by itself")

    monkeypatch.setattr(capsjax.layers.BatchNorm, "_of_batch", of_batch)
    preset = get_preset("digits-vb_capsnet").changed(batch_size=1)
    model_options = {**preset.model.options, "conv_features": 4, "primary_types": 2}
    found = measure_forward(
        preset.changed(model_options=model_options), load_dataset("digits"), Rounds(1, 0.001)
    )
    assert found["memory"]["outputs"] == 10 * 4


def test_what_is_larger_than_the_memory_is_not_run(config, dataset, monkeypatch):
    monkeypatch.setattr(forward, "room", lambda devices: 1000)
    with pytest.raises(DoesNotFitError, match=r"a batch of 8 takes [\d,]+ bytes, more than the"):
        measure_forward(config, dataset, Rounds())


def test_a_network_that_cannot_be_made_is_bad_input(config, dataset):
    options = {**config.model.options, "colour": "red"}
    with pytest.raises(UserError, match="this network cannot be made: .*colour"):
        measure_forward(config.changed(model_options=options), dataset, Rounds())
