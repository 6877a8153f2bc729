"""A small network of Gu and Tresp 2020 on the embedded digits: shared matrices, no routing.

Command: `python -m train fit digits-aff_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: about 9 seconds.
Result: beside the other networks of these digits, in docs/guides/compare.md, which tells how
cross-validation chose widths and learning rate. Kernels and the number of layers are the recipe's
own.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(preset="digits-aff_capsnet", model="aff_capsnet", routing="uniform")
