"""CapsNet with the paper's sizes on MNIST in batches of 4,096, for many devices.

Large batches take few steps, and Adam learns little in them. Muon makes more of each: on the
network of `mnist-small`, 20 epochs at 4,096 (293 steps) ended 0.10 points behind 20 epochs at 128
(9,375 steps), mean of three seeds; docs/performance.md has the table. There, learning rates of 0.01
and 0.06 were worse after 10 epochs, and LAMB and Adam far behind; 0.045 with 10 steps of warm-up
was no better after 20 (0.43 and 0.55 % with seeds 0 and 1, against 0.48 and 0.50).

Command: `python -m train fit mnist-large-batch --data-dir FOLDER_WITH_THE_IDX_FILES`
Hardware: meant for accelerators; on a CPU, `--micro-batches 16` makes it several times as fast.
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
