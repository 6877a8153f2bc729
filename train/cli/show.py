"""`show`: draws the images of a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.options.command import argument, option
from train.options.shared import Arrays
from train.system.errors import UserError

MOST = 1000
"""Images on a sheet."""


@dataclass(kw_only=True)
class Show(Arrays):
    """Draw the images of a data set.

    Draws images of each class of a data set with their names, to see what a network learns from; of
    images of several classes their parts, too.
    """

    dataset: str = argument("name of the data set", metavar="DATASET")
    out: Path = option(..., "the PNG to write", metavar="FILE")
    split: Literal["train", "test"] = option("train", "which images")
    count: int = option(60, "how many images", metavar="N")

    def run(self) -> int:
        """Draws, and prints the name of the file."""
        from train.data import load_dataset, npz
        from train.report.contact_sheet import draw_contact_sheet
        from train.system.files import write_figure, writing

        out = self.out
        if not 1 <= self.count <= MOST:
            raise UserError(f"--count is {self.count}: choose 1 to {MOST} images.")
        if out.suffix.lower() != ".png":
            raise UserError(
                f"--out is {out}, but a PNG is drawn: name it so, as in {out.stem}.png."
            )
        dataset = load_dataset(
            self.dataset, data_dir=self.data_dir, layout=self.layout or npz.AS_WRITTEN
        )
        examples = dataset.train if self.split == "train" else dataset.test
        batch = examples.some(self.count)
        shown = f"{len(batch.labels)} of {len(examples):,}"
        title = f"{self.dataset}, {self.split}: {shown}"
        with writing(out):
            write_figure(out, draw_contact_sheet(batch, dataset.class_names, title))
        print(out)
        return 0
