"""Self-routing capsules on a small residual network, for the digits embedded in scikit-learn.

A residual block of each width, and 16 types of 8-dimensional capsules in two layers.

Command: `python -m train fit digits-sr_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: half a minute.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths and learning rate. Kernels and the number of layers are the recipe's
own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(
    preset="digits-sr_capsnet",
    model="sr_capsnet",
    model_options={"width": 32, "blocks": 1, "caps_types": 16, "caps_dim": 8, "conv_caps": 1},
    routing="self-routing",
    loss="cross_entropy",
    learning_rate=0.002,
)
