"""Small matrix capsules by variational Bayes on the 8x8 digits embedded in scikit-learn.

One layer of 8 types between primary and class capsules.

Command: `python -m train fit digits-vb_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: about 15 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths and learning rate. Kernels and the number of layers are the recipe's
own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(
    preset="digits-vb_capsnet",
    model="vb_capsnet",
    model_options={
        "conv_kernel": 3,
        "caps_types": [8],
        "caps_kernels": [2],
        "caps_strides": [1],
    },
    routing="variational-bayes",
    loss="cross_entropy",
    learning_rate=0.005,
)
