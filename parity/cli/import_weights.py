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
    check_on: Path | None = option(
        None,
        "an .npz file with images and the lengths (or poses) that PyTorch's network has for them, "
        "which the run must have, too",
        metavar="FILE",
    )
    overwrite: bool = option(False, "replace the run in --out, if there is one")
    settings: dict[str, Any] = settings(leave_out=("init_from",))

    def run(self) -> int:
        """Makes the run, and says what it is."""
        from parity.layouts.importing import assumed, import_weights
        from train.options.recipe import with_settings

        checked: list[str] = []

        def verify(*imported: Any) -> None:
            from parity.user_module.expected import check_on

            if self.check_on is not None:
                checked.append(check_on(self.check_on, *imported))

        imported = import_weights(
            self.weights,
            layout=self.layout,
            out=self.out,
            dataset=self.settings.get("dataset"),
            change=lambda config: with_settings(config, self.settings),
            overwrite=self.overwrite,
            verify=verify,
        )
        run = imported.run
        images = "x".join(map(str, run.image_shape))
        print(
            f"{run.folder}: {imported.parameters:,} parameters of {self.weights} as the layout "
            f"{imported.layout.name}, for {images} images in {run.num_classes} classes "
            f"({run.config.data.dataset})"
        )
        kept = run.config.model.param_dtype
        if imported.casts:
            counts = [f"{count} of {dtype}" for dtype, count in imported.casts.items()]
            print(f"note: tensors converted to {kept}: {', '.join(counts)}")
        if imported.others and "dataset" not in self.settings:
            others = ", ".join(imported.others)
            print(f"note: {others} would fit, too: --dataset says which it is for")
        for sentence in checked:
            print(f"checked: {sentence}")
        if not checked:
            print(
                f"note: taken as the layout has it, since weights do not tell: "
                f"{', '.join(assumed(run))}; --check-on compares what the network computes"
            )
        return 0
