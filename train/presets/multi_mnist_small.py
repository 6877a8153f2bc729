"""A reduced CapsNet on pairs of overlapping digits that a laptop's CPU trains in half an hour.

The network, learning rate and cosine of `mnist-small`. The number of steps is what half an hour
allows.

Command: `python -m train fit multi_mnist-small --data-dir FOLDER_WITH_MNIST_S_IDX_FILES`
Hardware: 2 cores of an x86-64 CPU.
Time: about half an hour.
Result: both digits of 75.2 % of 10,000 pairs of test digits (seed 0, the last checkpoint; the pairs
are made of 50,000 training images; docs/results/multi_mnist-small).
"""

from train.presets import mnist_small

CONFIG = mnist_small.CONFIG.changed(
    preset="multi_mnist-small",
    dataset="multi_mnist",
    max_shift=0,
    max_rotation=0.0,
    max_scaling=0.0,
    epochs=20,  # of no effect beside steps; as in what was measured
    steps=1_875,
    evaluate_every=469,
)
