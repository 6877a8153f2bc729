"""CapsNet with the paper's sizes on Fashion-MNIST, by the recipe of MNIST.

Command: `python -m train fit fashion_mnist --data-dir FOLDER_WITH_THE_IDX_FILES`
Hardware: meant for an accelerator.
Time: not measured yet.
Result: not measured yet.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(preset="fashion_mnist", dataset="fashion_mnist")
