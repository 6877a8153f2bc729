"""A small network of capsules that route by attention, on the 8x8 digits of scikit-learn.

Command: `python -m train fit digits-attention_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: half a minute.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths and learning rate. Kernels and the number of layers are the recipe's
own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(
    preset="digits-attention_capsnet",
    model="attention_capsnet",
    model_options={
        "backbone_features": [32],
        "backbone_blocks": [1],
        "backbone_strides": [1],
        "primary_types": 16,
        "caps_types": [16, 16],
        "caps_kernels": [3, 2],
        "caps_strides": [2, 1],
    },
    routing="inverted-attention",
    routing_iterations=2,
    loss="cross_entropy",
    learning_rate=0.002,
)
