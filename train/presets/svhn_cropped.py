"""A smaller CapsNet on SVHN as in Sabour, Frosst and Hinton 2017 (arXiv:1710.09829, section 7).

64 features, 16 types of primary capsules of 6 dimensions, classes of 8 dimensions, and the 73,257
training images alone. All else as on MNIST, but for the shifts: the paper tells no more. Its error
is 4.3 %.

Command: `python -m train fit svhn_cropped --data-dir FOLDER_WITH_THE_MAT_FILES`
Hardware: meant for an accelerator.
Time: not measured yet.
Result: not measured yet.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(
    preset="svhn_cropped",
    dataset="svhn_cropped",
    max_shift=0,
    model_options={
        "conv_features": 64,
        "primary_types": 16,
        "primary_dim": 6,
        "class_dim": 8,
    },
)
