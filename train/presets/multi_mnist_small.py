"""A reduced CapsNet on pairs of overlapping digits that a laptop's CPU trains in minutes.

Command: `python -m train fit multi_mnist-small --data-dir FOLDER_WITH_MNIST_S_IDX_FILES`
Hardware: 2 cores of an x86-64 CPU.
Time: minutes.
Result: not measured yet in this length.
"""

from train.presets import mnist_small

CONFIG = mnist_small.CONFIG.changed(
    preset="multi_mnist-small",
    dataset="multi_mnist",
    max_shift=0,
    steps=1_875,
    evaluate_every=469,
)
