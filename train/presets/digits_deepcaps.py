"""A small DeepCaps on the 8x8 digits that are embedded in scikit-learn.

Two cells of 8 types of capsules, the second of which is routed.

Command: `python -m train fit digits-deepcaps`
Hardware: 2 cores of an x86-64 CPU.
Time: about 22 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths and learning rate. Kernels and the number of layers are the recipe's
own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(
    preset="digits-deepcaps",
    model="deepcaps",
    model_options={
        "conv_features": 32,
        "types": 8,
        "dims": [8, 8],
        "class_dim": 16,
        "decoder_channels": 8,
        "decoder_features": [16, 8],
        "decoder_strides": [2, 2],
    },
    learning_rate=0.005,
)
