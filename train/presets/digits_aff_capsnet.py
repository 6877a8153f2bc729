"""A small network of Gu and Tresp 2020 on the embedded digits: shared matrices, no routing.

Command: `python -m train fit digits-aff_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: about 10 seconds.
Result: 96.7 to 97.2 % of the 359 test images (seeds 1 and 0), November 2026.
"""

from train.presets import digits

CONFIG = digits.CONFIG.changed(preset="digits-aff_capsnet", model="aff_capsnet", routing="uniform")
