"""CapsNet on smallNORB as in Sabour, Frosst and Hinton 2017 (arXiv:1710.09829, section 7).

The network for MNIST, on 32x32 of each 48x48 stereo pair, anywhere in training, in the middle in
test. All else as on MNIST, but for the shifts: the paper tells no more. Its error is 2.7 %. The
authors' code also varies brightness and contrast and gives each image mean 0 and variance 1
(`--max-brightness`, `--max-contrast`, `--standardise`), which this recipe does not.
`--dataset smallnorb-azimuth` and `--dataset smallnorb-elevation` train on a third of the viewpoints
and test on the others.

Command: `python -m train fit smallnorb --data-dir FOLDER_WITH_THE_MAT_FILES`
Hardware: meant for an accelerator.
Time: not measured yet.
Result: not measured yet.
"""

from train.presets import mnist

CONFIG = mnist.CONFIG.changed(preset="smallnorb", dataset="smallnorb", max_shift=0, crop=32)
