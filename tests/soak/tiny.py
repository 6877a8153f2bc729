"""A run that takes no time: what it computes matters less than what happens to it."""

from train.config.fit_config import FitConfig
from train.presets import get_preset

ARGUMENTS = (
    *("--model-options", "conv_features=8", "primary_types=2", "decoder_hidden=[8]"),
    *("--batch-size", "16", "--max-shift", "1", "--ema-decay", "0.9", "--warmup-steps", "5"),
    *("--schedule", "constant", "--learning-rate", "0.002"),  # that a longer run shares
)
"""Of `python -m train fit digits`."""


def tiny(**changes: object) -> FitConfig:
    """What `ARGUMENTS` say, and the changes."""
    digits = get_preset("digits")
    sizes = {"conv_features": 8, "primary_types": 2, "decoder_hidden": [8]}
    values = {
        "model_options": {**digits.model.options, **sizes},
        **{"batch_size": 16, "max_shift": 1, "ema_decay": 0.9, "warmup_steps": 5},
        **{"schedule": "constant", "learning_rate": 0.002},
    }
    return digits.changed(**{**values, **changes})
