"""A reduced CapsNet on digits placed at random that a laptop's CPU trains in minutes.

It is `mnist-small`, with its digits neither turned nor scaled, stopped when it recognises 98 % of
the digits that are set aside, to be measured on what it has not seen: see `affnist`. That share and
the longest time, 4 epochs, are the recipe's own.

Command: `python -m train fit affnist-small --data-dir FOLDER_WITH_MNIST_S_IDX_FILES`, and then
`evaluate runs/affnist-small --dataset affnist-generated`.
Hardware: 2 cores of an x86-64 CPU.
Time: minutes.
Result: not measured since it is stopped by digits that are set aside. Not measured on affNIST.
"""

from train.presets import mnist_small

CONFIG = mnist_small.CONFIG.changed(
    preset="affnist-small",
    dataset="mnist-40x40",
    max_shift=6,
    max_rotation=0.0,
    max_scaling=0.0,
    epochs=4,
    evaluate_every=117,
    stop_at_accuracy=0.98,
)
