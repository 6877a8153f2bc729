"""Small matrix capsules with EM routing on the 8x8 digits that are embedded in scikit-learn.

One layer of convolutional capsules, two iterations, and twice the inverse temperature of the
authors' code, for there are fewer votes to be sure by.

Command: `python -m train fit digits-matrix_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: about 21 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths, temperature and learning rate. Kernels, the number of layers and of
iterations, and the steps of the spread loss are the recipe's own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(
    preset="digits-matrix_capsnet",
    model="matrix_capsnet",
    model_options={
        "conv_kernel": 3,
        "conv_stride": 1,
        "primary_types": 8,
        "caps_types": [16],
        "caps_kernels": [3],
        "caps_strides": [2],
    },
    routing="em",
    routing_iterations=2,
    routing_options={"inverse_temperature": 0.02},
    loss="spread",
    spread_steps=300,
    learning_rate=0.005,
)
