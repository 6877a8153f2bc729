"""A reduced CapsNet on MNIST that a laptop's CPU trains in minutes.

python -m train fit mnist-small --data-dir FOLDER_WITH_THE_IDX_FILES
"""

from train.config import FitConfig

CONFIG = FitConfig(
    preset="mnist-small",
    dataset="mnist",
    max_shift=2,
    model_options={
        "conv_features": 64,
        "primary_types": 8,
        "decoder_hidden": [256, 512],
    },
    epochs=2,
    learning_rate=0.002,
)
