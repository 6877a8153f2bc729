"""The lines that say what a run is about."""

from train.learn.trainer import assemble
from train.loop.header import header
from train.run.folder import Run


def test_what_a_run_is_about(tmp_path, config, dataset):
    config = config.changed(dataset="folder:photos", steps=None, epochs=2.5)
    trainer = assemble(config, dataset, devices=2)
    run = Run(tmp_path, config, (8, 8, 1), ("a", "b", "c"))
    kind = trainer.mesh.devices.flat[0].device_kind
    assert header(trainer, run).splitlines() == [
        "network  capsnet, dynamic routing, 1,728 parameters",
        "data     folder:photos: 40 training, 10 validation, 10 test images 8x8x1, 3 classes",
        f"devices  2 {kind}",
        "length   2.6 epochs, 13 steps of 8 images",
        f"folder   {tmp_path}",
    ]
    trainer.state = trainer.state._replace(step=trainer.state.step + 4)
    assert "steps of 8 images, from step 4 on" in header(trainer, run)


def test_a_network_that_does_not_route(tmp_path, config, dataset):
    config = config.changed(
        model="cnn", model_options={"features": [4], "kernel_size": 3, "hidden": []}
    )
    run = Run(tmp_path, config, (8, 8, 1), ("a", "b", "c"))
    text = header(assemble(config, dataset), run)
    assert text.startswith("network  cnn, ")
    assert "routing" not in text
