"""What a run is about, in a few lines, before it begins."""

from collections import Counter

import capsjax
from train.data import Examples
from train.data.formats.images import as_text
from train.learn.network import count_parameters
from train.learn.trainer import Trainer
from train.run.folder import Run
from train.system.tables import aligned


def header(trainer: Trainer, run: Run) -> str:
    """Network, parameters, data, devices, length and folder of a run that begins or goes on."""
    config, data, step = trainer.config, trainer.dataset, int(trainer.state.step)
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items() if split)
    kinds = Counter(device.device_kind for device in trainer.mesh.devices.flat)
    batch, total = config.schedule.batch_size, trainer.total_steps
    routes = "routing" in capsjax.model_options(config.model.name)
    rows = {
        "network": f"{config.model.name}, "
        + (f"{config.model.routing} routing, " if routes else "")
        + f"{count_parameters(trainer.state.params):,} parameters",
        "data": f"{config.data.dataset}: {counts} images {as_text(data.image_shape)}, "
        f"{data.num_classes} classes",
        "devices": ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        "length": f"{_epochs(total, batch, data.train)} epochs, {total:,} steps of {batch} images"
        + (f", from step {step:,} on" if step else ""),
        "folder": str(run.folder),
    }
    return aligned(list(rows.items()))


def _epochs(steps: int, batch: int, examples: Examples) -> str:
    return f"{steps * batch / len(examples):,.1f}"
