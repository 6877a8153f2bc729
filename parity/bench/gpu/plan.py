"""What the report measures, and at which sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from train.bench.timing import Rounds
from train.config.fit_config import FitConfig
from train.presets import get_preset


@dataclass(frozen=True)
class Plan:
    """The sizes of everything that is measured: by default those for an accelerator.

    Attributes:
        config: the recipe.
        dtype: in which training is measured.
        batch_sizes: tried for the fastest training, the likeliest first.
        contenders: who is timed beside capsjax at once; each group is a run of its own.
        contender_parts: they are timed at the fastest batch size divided by each.
        contender_sizes: arguments of the contenders' networks that differ from the paper's.
        rounds: of every timing.
        routing: input capsules, their dimension, output capsules, and their dimension.
        routing_batch: examples that are routed.
        memory_batches: the two batch sizes between which a step's memory is taken to be linear.
        most_images: where the search for the largest batch ends.
        parity_sizes: networks of `parity check`.
        parity_cases: cases of each that are compared at most; None for all.
        probe_epochs: length of the runs that measure an epoch, at least 2.
        fit_dtypes: in which the whole recipe is run.
    """

    config: FitConfig = field(default_factory=lambda: get_preset("mnist"))
    dtype: str = "bfloat16"
    batch_sizes: Sequence[int] = (2048, 1024, 4096, 512, 8192, 256)
    contenders: Sequence[Sequence[str]] = (("torch-fast", "torch-reference"), ("torch-compile",))
    contender_parts: Sequence[int] = (1, 4)
    contender_sizes: Mapping[str, Any] = field(default_factory=dict)
    rounds: Rounds = field(default_factory=Rounds)
    routing: tuple[int, int, int, int] = (1152, 8, 10, 16)
    routing_batch: int = 2048
    memory_batches: tuple[int, int] = (1024, 2048)
    most_images: int = 2**18
    parity_sizes: Sequence[str] = ("paper", "tiny")
    parity_cases: int | None = None
    probe_epochs: int = 4
    fit_dtypes: Sequence[str] = ("bfloat16", "float32")

    def training(self, batch_size: int, implementation: str | None = None) -> FitConfig:
        """The recipe in `dtype` at another batch size; the library's choice of routing if None."""
        options = {**self.config.model.options, "routing_implementation": implementation}
        return self.config.changed(batch_size=batch_size, dtype=self.dtype, model_options=options)


def tiny() -> Plan:
    """A dry run on a CPU: it has every part, and no figure that means anything."""
    small = {"conv_features": 4, "primary_types": 2, "decoder_hidden": [8]}
    digits = get_preset("digits")
    return Plan(
        config=digits.changed(
            model_options={**digits.model.options, **small}, batch_size=256, epochs=2
        ),
        batch_sizes=(16,),
        contenders=(("torch-fast", "torch-reference"),),
        contender_parts=(1,),
        contender_sizes=small,
        rounds=Rounds(2, 0.01),
        routing=(6, 4, 3, 4),
        routing_batch=2,
        memory_batches=(8, 16),
        most_images=32,
        parity_sizes=("tiny",),
        parity_cases=1,
        probe_epochs=2,
        fit_dtypes=("bfloat16",),
    )
