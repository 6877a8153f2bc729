"""A small Efficient-CapsNet on the 8x8 digits that are embedded in scikit-learn.

Three convolutions, 8 primary capsules of whole maps and self-attention: 34,160 parameters outside
the decoder.

Command: `python -m train fit digits-efficient_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: about 11 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths and learning rate. Kernels and the number of layers are the recipe's
own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(
    preset="digits-efficient_capsnet",
    model="efficient_capsnet",
    model_options={
        "features": [16, 32, 64],
        "kernel_sizes": [3, 3, 3],
        "strides": [1, 1, 1],
        "decoder_hidden": [64, 128],
    },
    routing="self-attention",
    learning_rate=0.002,
)
