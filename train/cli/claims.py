"""`claims`: tries what papers say of capsule networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.options.command import argument, option
from train.options.shared import DataDir, Recorded
from train.options.values import positive


def _names() -> str:
    from train.study.claims import list_claims

    return f"one of: {', '.join(list_claims())}"


@dataclass(kw_only=True)
class Claims(DataDir, Recorded):
    """Try what papers say of capsule networks.

    Trains capsule networks and what they are compared with, from several seeds, and writes
    whether the claim was seen; with the budget `paper` the paper's numbers beside ours.
    """

    claim: str = argument(_names, metavar="NAME")
    budget: Literal["small", "medium", "paper"] = option(
        "small",
        "small: reduced networks for a quarter of an hour of two CPU cores, which prove nothing; "
        "medium: reduced networks, for some hours; paper: the paper's, for an accelerator",
    )
    seeds: int = option(
        3, "networks of each kind, with the seeds 0 to N - 1", metavar="N", parse=positive
    )
    out: Path | None = option(None, "folder (default: runs/claims/NAME-BUDGET)", metavar="DIR")
    overwrite: bool = option(False, "train anew what the folder has of other options")

    def run(self) -> int:
        """Trains what is missing, and writes and prints what was seen."""
        from train.study import records
        from train.study.claims import get_claim
        from train.study.trial.trial import try_claim
        from train.system.caches import keep_compiled_programs

        self.reserve("claims", "claims")
        keep_compiled_programs()
        found = try_claim(
            get_claim(self.claim),
            out=self.out or Path("runs") / "claims" / f"{self.claim}-{self.budget}",
            command=self.line,
            cells=records.folder(self.record) / "cells" if self.record else None,
            budget=self.budget,
            seeds=self.seeds,
            data_dir=self.data_dir,
            overwrite=self.overwrite,
        )
        self.keep("claims", {"kind": "claims", **found, "claim": self.claim})
        return 0
