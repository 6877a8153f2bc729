"""`import`: makes a run of a file of PyTorch weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.options.command import Command, argument, option, settings


def layouts() -> str:
    """A sentence with all layouts."""
    from parity.layouts.table import builtin_layouts

    named = ", ".join(f"{layout.name} ({layout.about})" for layout in builtin_layouts())
    return f"Layouts: {named}."


@dataclass(kw_only=True)
class Import(Command):
    """Make a run of a file of PyTorch weights.

    Makes a run of a file of weights (PyTorch's, whatever its suffix, also a checkpoint of
    Lightning; safetensors; or .h5 of Keras) that computes what the PyTorch network computes;
    `python -m train` evaluate, predict and fit --resume take it.
    """

    epilog = layouts

    weights: Path = argument("the file of weights", metavar="WEIGHTS")
    layout: str = option(
        "auto",
        "what the PyTorch network calls its tensors: a name, the path of a TOML file, or auto (the "
        "default)",
        metavar="NAME|FILE",
    )
    out: Path = option(..., "folder of the run")
    overwrite: bool = option(False, "replace the run in --out, if there is one")
    settings: dict[str, Any] = settings(leave_out=("init_from",))

    def run(self) -> int:
        """Makes the run, and says what it is."""
        from parity.layouts.importing import import_weights
        from train.options.recipe import with_settings

        imported = import_weights(
            self.weights,
            layout=self.layout,
            out=self.out,
            dataset=self.settings.get("dataset"),
            change=lambda config: with_settings(config, self.settings),
            overwrite=self.overwrite,
        )
        run = imported.run
        images = "x".join(map(str, run.image_shape))
        print(
            f"{run.folder}: {imported.parameters:,} parameters of {self.weights} as the layout "
            f"{imported.layout.name}, for {images} images in {run.num_classes} classes "
            f"({run.config.data.dataset})"
        )
        kept = run.config.model.param_dtype
        for dtype, count in imported.casts.items():
            print(f"note: {count} tensors of {dtype} were converted to {kept}")
        if imported.others and "dataset" not in self.settings:
            others = ", ".join(imported.others)
            print(f"note: {others} would fit, too: --dataset says which it is for")
        return 0
