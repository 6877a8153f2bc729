"""CapsNet with the paper's sizes on Fashion-MNIST.

python -m train fit fashion_mnist --data-dir FOLDER_WITH_THE_IDX_FILES
"""

from train.config import FitConfig

CONFIG = FitConfig(preset="fashion_mnist", dataset="fashion_mnist", max_shift=2, epochs=50)
