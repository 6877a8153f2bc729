"""CapsNet on MNIST as in Sabour, Frosst and Hinton 2017 (arXiv:1710.09829, sections 4 and 5).

Images shifted by up to 2 pixels, Adam, learning rate 0.001, 3 routing iterations, reconstruction
with the weight of 0.0005. The paper's rate decays exponentially, it does not tell how fast; here it
falls on a cosine, so that it ends at 0 for any number of epochs, which validation images prefer to
a constant rate in the network of `mnist-small` (docs/results/mnist-small-screen). The number of
epochs is the recipe's own; the other values are the paper's. The paper's error is 0.25 %.

Command: `python -m train fit mnist --data-dir FOLDER_WITH_THE_IDX_FILES --validation 0`
Hardware: 2 cores of an x86-64 CPU.
Time: two and a half hours, beside other work; three minutes on an NVIDIA H100.
Result: 99.62 % of the 10,000 test images by the last checkpoint (seed 0; docs/results/mnist), and
99.66 % with `--max-rotation 10 --max-scaling 0.1` (seed 0; docs/results/mnist-turned). With a
rate that hardly falls: 99.60 % (seed 0, on that GPU; docs/measured), which was known before the
cosine was taken.
"""

from train.config.fit_config import FitConfig

CONFIG = FitConfig.of(
    preset="mnist",
    dataset="mnist",
    max_shift=2,
    epochs=50,
    schedule="cosine",
)
