"""CapsNet on MNIST as the code of the authors of Sabour, Frosst and Hinton 2017 trains it.

What that code does and the paper (arXiv:1710.09829) does not tell, beside `mnist`: the
reconstruction weighs 20 times as much, since the margin loss is taken 0.5 times and averaged over
the classes; the learning rate falls by 4 % every 2,000 steps, smoothly, to 1e-6, over 300,000
steps; the output of the primary convolution is multiplied by 1/32; class capsules have a bias;
biases start at 0.1 and matrices from truncated normal distributions. No value was chosen here.

Command: `python -m train fit mnist-authors --data-dir FOLDER_WITH_THE_IDX_FILES --validation 0`
Hardware: meant for a GPU.
Time: not measured yet.
Result: not measured yet.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(
    preset="mnist-authors",
    routing="dynamic-bias",
    model_options={"primary_scale": 1 / 32, "initial_values": "authors"},
    reconstruction_weight=0.01,
    steps=300_000,
    schedule="exponential",
    decay_rate=0.96,
    decay_steps=2000,
    learning_rate_floor=1e-6,
)
