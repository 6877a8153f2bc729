"""`predict`: classifies image files."""

import codecs
import contextlib
import csv
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from train.options.command import argument, option
from train.options.shared import Trained
from train.options.values import new_file, positive
from train.system.errors import UserError
from train.system.printing import escaped

if TYPE_CHECKING:
    from train.report.predict import Prediction

MOST = 5
"""Classes that are shown of an image, the most present, if nothing else is said."""


@dataclass(kw_only=True)
class Predict(Trained):
    """Classify image files.

    Classifies image files of any size, grey or in colour, with the network of a run; prints the
    class of each, and the most present classes with the lengths of their capsules, from 0 to 1. Of
    a folder all images are taken, and of those in it. A file that cannot be read is told at the
    end, and the others are done all the same.
    """

    epilog = (
        "Exit codes: 0, all are classified; 2, bad input, or some files could not be read: what "
        "was asked for is written of all others."
    )

    run_folder: Path = argument("folder of a run", metavar="RUN")
    images: list[Path] = argument("image files, or folders of some", metavar="IMAGE", many=True)
    invert: bool = option(False, "swap dark and light first: for dark digits on light paper")
    top: int = option(
        MOST,
        "classes to show of an image, the most present; --json has all",
        metavar="K",
        parse=positive,
    )
    csv: Path | None = option(
        None,
        "write a table instead of lines: path, class, score (the length of its capsule), and the "
        "next classes and scores, as many as --top says; where images show several classes, also "
        "present: these, between semicolons",
        metavar="FILE",
        parse=new_file,
    )
    save_capsules: Path | None = option(
        None,
        "keep the capsules of each layer, for np.load: pose, activation and coupling, with a row "
        "for each image",
        metavar="FILE.npz",
        parse=new_file,
    )

    def run(self) -> int:
        """Classifies, and prints a line an image."""
        from train.learn.objective import PRESENT
        from train.report.capsule_file import CapsuleFile
        from train.report.predict import image_files, predict
        from train.run.folder import load_run
        from train.system.caches import keep_compiled_programs
        from train.system.files import writing

        if self.csv is not None and self.json:
            raise UserError(
                f"--csv is {self.csv}, but --json prints the same on stdout: leave one of them out."
            )
        if self.save_capsules is not None and self.save_capsules.suffix != ".npz":
            raise UserError(f"--save-capsules is {self.save_capsules}, but must end in .npz.")
        keep_compiled_programs()
        self.trust_routing([self.run_folder])
        run, files = load_run(self.run_folder), image_files(self.images)
        refused: list[UserError] = []
        tally: Counter[str] = Counter()
        with contextlib.ExitStack() as stack:
            capsules = None
            if self.save_capsules is not None:
                stack.enter_context(writing(self.save_capsules, "--save-capsules"))
                capsules = stack.enter_context(CapsuleFile(self.save_capsules))
            predictions = predict(
                self.run_folder,
                files,
                which=self.checkpoint,
                invert=self.invert,
                refuse=refused.append,
                look=capsules.add if capsules else None,
            )
            self._show(
                _counted(predictions, tally),
                min(self.top, run.num_classes),
                len(files),
                run.labels_per_image != 1,
            )
            if capsules and tally["images"]:
                capsules.keep(run.class_names)
        if self.csv and tally["images"]:
            print(f"{self.csv}: {tally['images']:,} image{'s' * (tally['images'] > 1)}")
        if tally["unknown"]:
            print(
                f"note: in {tally['unknown']:,} of {tally['images']:,} images no class has "
                f"a capsule longer than {PRESENT}: nothing was recognised there",
                file=sys.stderr,
            )
        if tally["dark on light"]:
            print(
                "note: some images are dark on light; networks trained on light digits on a dark "
                "ground need --invert",
                file=sys.stderr,
            )
        for error in refused:
            print(f"error: {error}", file=sys.stderr)
        return UserError.exit_code if refused else 0

    def _show(
        self, predictions: Iterator["Prediction"], top: int, files: int, several: bool
    ) -> None:
        """Writes a table of so many classes an image, prints JSON, or prints lines."""
        if self.csv is not None:
            _write_table(self.csv, predictions, top, files, several)
        elif self.json:
            before = "["
            for prediction in predictions:
                print(before, json.dumps(prediction.values()), sep="", end="")
                before = ", "
            print("[]" if before == "[" else "]")
        else:
            for prediction in predictions:
                longest = ", ".join(f"{name} {value:.3f}" for name, value in prediction.top(top))
                named = " and ".join(prediction.classes) or "nothing"
                print(escaped(f"{prediction.path}: {named} ({longest})"))


def _write_table(
    path: Path, predictions: Iterator["Prediction"], top: int, files: int, several: bool
) -> None:
    """Writes a table of so many classes an image; none where no file of so many can be read.

    Where images show several, these have a column, the last one.
    """
    from train.system.files import staged, writing
    from train.system.progress import Progress

    first = next(predictions, None)
    if first is None:
        return
    head = ["path", "class", "score"]
    head += [f"{what}_{rank}" for rank in range(2, top + 1) for what in ("class", "score")]
    head += ["present"] if several else []
    with writing(path, "--csv"), staged(path) as file, Progress(files, "image") as progress:
        # Names of files are bytes, which need not be UTF-8.
        table = csv.writer(codecs.getwriter("utf-8")(file, "surrogateescape"))
        table.writerow(head)
        for prediction in itertools.chain([first], predictions):
            scores = ((name, f"{value:.6f}") for name, value in prediction.top(top))
            present = ["; ".join(prediction.classes)] if several else []
            table.writerow([prediction.path, *itertools.chain(*scores), *present])
            progress.advance(figures="classified")


def _counted(predictions: Iterable["Prediction"], tally: Counter[str]) -> Iterator["Prediction"]:
    """The same predictions, counted as they go by."""
    for prediction in predictions:
        tally["images"] += 1
        tally["unknown"] += not prediction.is_recognised
        tally["dark on light"] += prediction.is_dark_on_light
        yield prediction
