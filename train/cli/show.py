"""`show`: draws the images of a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.options.command import argument, option
from train.options.shared import DataDir


@dataclass(kw_only=True)
class Show(DataDir):
    """Draw the images of a data set.

    Draws the first images of a data set with the names of their classes, to see what a network
    learns from; of images of several classes their parts, too.
    """

    dataset: str = argument("name of the data set", metavar="DATASET")
    out: Path = option(..., "the PNG to write", metavar="FILE")
    split: Literal["train", "test"] = option("train", "which images")
    count: int = option(60, "how many images", metavar="N")

    def run(self) -> int:
        """Draws, and prints the name of the file."""
        from train.report.contact_sheet import write_contact_sheet

        write_contact_sheet(
            self.dataset,
            out=self.out,
            split=self.split,
            count=self.count,
            data_dir=self.data_dir,
        )
        print(self.out)
        return 0
