"""A reduced CapsNet on MNIST that a laptop's CPU trains in minutes.

Command: `python -m train fit mnist-small --data-dir FOLDER_WITH_THE_IDX_FILES`
Hardware: 2 cores of an x86-64 CPU.
Time: 93 seconds, at 1,480 images/s.
Result: 99.05 to 99.11 % of the 10,000 test images after 2 epochs (seeds 0 to 2), November 2026;
99.05 to 99.13 % with `--dtype bfloat16`.
"""

from train.config.fit_config import FitConfig

CONFIG = FitConfig.of(
    preset="mnist-small",
    dataset="mnist",
    max_shift=2,
    model_options={
        "conv_features": 64,
        "primary_types": 8,
        "decoder_hidden": [256, 512],
    },
    epochs=2,
    learning_rate=0.002,
)
