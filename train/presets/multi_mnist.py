"""CapsNet on pairs of overlapping digits as in Sabour, Frosst and Hinton 2017 (arXiv:1710.09829).

Section 6: the network of MNIST on images of 36x36, each pair of digits of different classes; both
are reconstructed, and an image is right if both are. The paper's learning rate decays ten times as
slowly as on MNIST, which is by 4 % every 20,000 steps, if what the authors' code has for MNIST is
what the paper had. Here, an epoch is all pairs of the training digits. The paper does not tell how
many were seen; the authors' code shifts by up to 6 pixels, not 4. The paper's error is 5.2 %, that
of its convolutional network 8.1 %. `evaluate RUN --test-examples
10000000` measures on all of the test pairs.

Command: `python -m train fit multi_mnist --data-dir FOLDER_WITH_MNIST_S_IDX_FILES`
Hardware: meant for accelerators.
Time: not measured yet.
Result: not measured yet with the paper's sizes; see `multi_mnist-small`.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(
    preset="multi_mnist",
    dataset="multi_mnist",
    max_shift=0,
    epochs=1,
    schedule="exponential",
    decay_rate=0.96,
    decay_steps=20_000,
    evaluate_every=5_000,
    checkpoint_every=5_000,
)
