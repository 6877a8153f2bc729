"""CapsNet with the paper's sizes on Kuzushiji-MNIST, by the recipe of MNIST.

Command: `python -m train fit kmnist --data-dir FOLDER_WITH_THE_IDX_FILES`
Hardware: meant for an accelerator.
Time: not measured yet.
Result: not measured yet.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(preset="kmnist", dataset="kmnist")
