"""A small CapsNet on the 8x8 digits that are embedded in scikit-learn: nothing to download.

Command: `python -m train fit digits`
Hardware: 2 cores of an x86-64 CPU.
Time: about 11 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths, batch, length and learning rate. The cosine is that of `mnist-small`;
kernels and the number of layers, which images of 8x8 leave little room for, are the recipe's own.
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
