"""CapsNet with the paper's sizes on Fashion-MNIST.

Command: `python -m train fit fashion_mnist --data-dir FOLDER_WITH_THE_IDX_FILES`
Hardware: meant for an accelerator.
Time: not measured yet.
Result: not measured yet.
"""

from train.config import FitConfig

CONFIG = FitConfig(
    preset="fashion_mnist",
    dataset="fashion_mnist",
    max_shift=2,
    epochs=50,
    decay_rate=0.96,
    decay_steps=2000,
    ema_decay=0.97,
)
