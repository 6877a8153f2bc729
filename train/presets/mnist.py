"""CapsNet on MNIST as in Sabour, Frosst and Hinton 2017 (arXiv:1710.09829, sections 4 and 5).

python -m train fit mnist --data-dir FOLDER_WITH_THE_IDX_FILES
"""

from train.config import FitConfig

CONFIG = FitConfig(preset="mnist", dataset="mnist", max_shift=2, epochs=50)
