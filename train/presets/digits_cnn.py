"""A small convolutional network, without capsules, on the embedded digits: a baseline.

Command: `python -m train fit digits-cnn`
Hardware: 2 cores of an x86-64 CPU.
Time: about 7 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths and learning rate. Kernels and the number of layers are the recipe's
own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(
    preset="digits-cnn",
    model="cnn",
    model_options={"features": [32, 32, 16], "kernel_size": 3, "hidden": [64, 32]},
    loss="cross_entropy",
    learning_rate=0.002,
)
