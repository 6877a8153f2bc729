"""A run that takes no time: what it computes matters less than what happens to it."""

from train.__main__ import COMMANDS
from train.config.fit_config import FitConfig
from train.options.command import parse
from train.options.recipe import with_settings
from train.presets import get_preset

ARGUMENTS = (
    *("--model-options", "conv_features=8", "primary_types=2", "decoder_hidden=[8]"),
    *("--batch-size", "16", "--max-shift", "1", "--ema-decay", "0.9", "--warmup-steps", "5"),
    *("--schedule", "constant", "--learning-rate", "0.002"),  # that a longer run shares
)
"""Of `python -m train fit digits`."""


def tiny(**changes: object) -> FitConfig:
    """What `ARGUMENTS` say, and the changes."""
    said = parse("train", "", COMMANDS, ["fit", "digits", *ARGUMENTS])
    return with_settings(get_preset("digits"), said.settings).changed(**changes)
