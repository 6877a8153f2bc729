"""What the report measures, and at which sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.bench.timing import Rounds
from train.config.fit_config import FitConfig
from train.presets import get_preset


@dataclass(frozen=True)
class Plan:
    """The sizes of everything that is measured.

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

    config: FitConfig
    dtype: str
    batch_sizes: Sequence[int]
    contenders: Sequence[Sequence[str]]
    contender_parts: Sequence[int]
    contender_sizes: Mapping[str, Any]
    rounds: Rounds
    routing: tuple[int, int, int, int]
    routing_batch: int
    memory_batches: tuple[int, int]
    most_images: int
    parity_sizes: Sequence[str]
    parity_cases: int | None
    probe_epochs: int
    fit_dtypes: Sequence[str]

    def training(self, batch_size: int, implementation: str | None = None) -> FitConfig:
        """The recipe in the dtype of the measurements, at another batch size.

        Args:
            batch_size: images in a step.
            implementation: of the routing; None leaves the choice to the library.
        """
        return self.config.changed(
            batch_size=batch_size,
            dtype=self.dtype,
            model_options={
                **self.config.model.options,
                "routing_implementation": implementation,
            },
        )


FULL = Plan(
    config=get_preset("mnist"),
    dtype="bfloat16",
    batch_sizes=(2048, 1024, 4096, 512, 8192, 256),
    contenders=(("torch-fast", "torch-reference"), ("torch-compile",)),
    contender_parts=(1, 4),
    contender_sizes={},
    rounds=Rounds(5, 0.5),
    routing=(1152, 8, 10, 16),
    routing_batch=2048,
    memory_batches=(1024, 2048),
    most_images=2**18,
    parity_sizes=("paper", "tiny"),
    parity_cases=None,
    probe_epochs=4,
    fit_dtypes=("bfloat16", "float32"),
)
"""The report on an accelerator."""

_SMALL = {"conv_features": 4, "primary_types": 2, "decoder_hidden": [8]}

TINY = Plan(
    config=get_preset("digits").changed(
        model_options={**get_preset("digits").model.options, **_SMALL},
        batch_size=256,
        epochs=2,
    ),
    dtype="bfloat16",
    batch_sizes=(16,),
    contenders=(("torch-fast", "torch-reference"),),
    contender_parts=(1,),
    contender_sizes=_SMALL,
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
"""A dry run in seconds on a CPU: it has every part, and no figure that means anything."""
