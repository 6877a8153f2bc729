"""CapsNet on CIFAR-10 as in Sabour, Frosst and Hinton 2017 (arXiv:1710.09829, section 7).

24x24 of each image, anywhere in training, in the middle in test; 64 types of primary capsules; and
a softmax of the routing with a place for "none of the above", which is what leaky routing is in the
authors' code. All else as on MNIST, for the paper tells no more. The paper's error is 10.6 %, of
seven such networks together; what one of them has, it does not tell.

The authors' code for CIFAR-10 has what is not here: convolutions padded with zeros (SAME), no
reconstruction, images flipped from left to right, brightness changed by up to 63 grey levels and
contrast by 0.2 to 1.8, each image with mean 0 and variance 1.

Command: `python -m train fit cifar10 --data-dir FOLDER_WITH_THE_BINARY_VERSION`
Hardware: meant for an accelerator.
Time: not measured yet.
Result: not measured yet.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(
    preset="cifar10",
    dataset="cifar10",
    max_shift=0,
    crop=24,
    model_options={"primary_types": 64},
    routing="dynamic-leaky",
)
