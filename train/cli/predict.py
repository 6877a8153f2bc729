"""`predict`: classifies image files."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from train.options.command import argument, option
from train.options.shared import Trained


@dataclass(kw_only=True)
class Predict(Trained):
    """Classify image files.

    Classifies image files of any size, grey or in colour, with the network of a run; prints the
    class and the length of every class capsule.
    """

    run_folder: Path = argument("folder of a run", metavar="RUN")
    images: list[Path] = argument("an image file", metavar="IMAGE", many=True)
    invert: bool = option(False, "swap dark and light first: for dark digits on light paper")

    def run(self) -> int:
        """Classifies, and prints a line an image."""
        from train.report.predict import predict
        from train.system.caches import keep_compiled_programs

        keep_compiled_programs()
        self.trust_routing([self.run_folder])
        results = predict(self.run_folder, self.images, which=self.checkpoint, invert=self.invert)
        if self.json:
            print(json.dumps(results))
            return 0
        for result in results:
            lengths = ", ".join(f"{name} {value:.3f}" for name, value in result["lengths"].items())
            print(f"{result['image']}: {' and '.join(result['classes'])} ({lengths})")
        if any(result["dark_on_light"] for result in results):
            print(
                "note: some images are dark on light; networks trained on light digits on a dark "
                "ground need --invert",
                file=sys.stderr,
            )
        return 0
