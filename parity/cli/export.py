"""`export`: writes the weights of a run for PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parity.cli.import_weights import layouts
from train.options.command import Command, argument, option


@dataclass(kw_only=True)
class Export(Command):
    """Write the weights of a run for PyTorch.

    Writes the weights of a run as a PyTorch network has them, so that its
    load_state_dict(..., strict=True) takes them; refuses where that network would compute something
    else.
    """

    epilog = layouts

    run_folder: Path = argument("folder of a run", metavar="RUN")
    layout: str = option(
        ...,
        "what the PyTorch network calls its tensors: a name, or the path of a TOML file",
        metavar="NAME|FILE",
    )
    out: Path = option(
        ...,
        "the file; its suffix says which kind: .pt, .pth, .safetensors or, for Keras, .h5",
        metavar="FILE",
    )
    checkpoint: Literal["last", "best"] = option(
        "last", "the newest one, or the one with the highest validation accuracy"
    )
    overwrite: bool = option(False, "replace FILE, if there is one")
    force: bool = option(
        False, "write the weights even if the layout's network computes something else with them"
    )

    def run(self) -> int:
        """Writes the file, and says what is in it."""
        from parity.layouts.exporting import export_run

        exported = export_run(
            self.run_folder,
            layout=self.layout,
            out=self.out,
            which=self.checkpoint,
            overwrite=self.overwrite,
            force=self.force,
        )
        print(
            f"{self.out}: {exported.tensors} tensors, {exported.parameters:,} parameters of "
            f"{self.run_folder} at step {exported.step}, as the layout {exported.layout.name}"
        )
        for difference in exported.differences:
            print(f"note: the run computes something else in {difference}")
        return 0
