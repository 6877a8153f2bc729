"""`export`: writes the network of a run as one file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.options.command import argument, option
from train.options.shared import Trained


@dataclass(kw_only=True)
class Export(Trained):
    """Write the network of a run as one file.

    Writes the network of a run as one file that is used without this checkout: as safetensors for
    capsjax.load, with its options, class names and what is done to images; or as a program for
    jax.export.deserialize, images uint8 [n, height, width, channels] to lengths, for any n.
    """

    run_folder: Path = argument("folder of a run", metavar="RUN")
    file: Path = argument(
        "the file; its suffix says which kind, .safetensors or .jax", metavar="FILE"
    )
    format: Literal["safetensors", "jax"] | None = option(
        None, "which kind of file, whatever its suffix"
    )
    dtype: Literal["float16", "bfloat16", "float32"] | None = option(
        None, "what weights are stored in, in safetensors (default: as they are)"
    )
    without_decoder: bool = option(False, "leave the decoder out, which classes do not need")
    overwrite: bool = option(False, "replace FILE, if there is one")

    def run(self) -> int:
        """Writes the file, and says what is in it."""
        from train.report.exporting import export

        self.trust_routing([self.run_folder])
        written = export(
            self.run_folder,
            self.file,
            kind=self.format,
            which=self.checkpoint,
            dtype=self.dtype,
            decoder=not self.without_decoder,
            overwrite=self.overwrite,
        )
        if self.json:
            print(json.dumps({"file": str(self.file), **written._asdict()}))
        else:
            print(
                f"{self.file}: the network of {self.run_folder} at step {written.step}, "
                f"{written.bytes:,} bytes"
            )
        return 0
