"""Efficient-CapsNet with its published sizes on the first 10,000 images of MNIST, in one epoch.

Mazzia, Salvetti and Chiaberge 2021 (arXiv:2101.12491) train with all of them, augmented, for 150
epochs in the same batches of 16, from a learning rate of 0.0005 on, to an error of 0.26 %. For one
epoch a higher rate on a cosine is better; 0.003 and 0.005 are as good.

Command: `python -m train fit mnist-efficient_capsnet --data-dir FOLDER_WITH_THE_IDX_FILES`
Hardware: 2 cores of an x86-64 CPU.
Time: about a minute, at 250 images/s beside other work.
Result: 98.3 to 98.4 % of the 10,000 test images after that epoch (seeds 0 to 2), November 2026.
"""

from train.config.fit_config import FitConfig

CONFIG = FitConfig.of(
    preset="mnist-efficient_capsnet",
    dataset="mnist",
    train_examples=10_000,
    model="efficient_capsnet",
    routing="self-attention",
    batch_size=16,
    epochs=1,
    learning_rate=0.004,
    schedule="cosine",
)
