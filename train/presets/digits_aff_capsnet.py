"""A small network of Gu and Tresp 2020 on the embedded digits: shared matrices, no routing.

Command: `python -m train fit digits-aff_capsnet`
Hardware: 2 cores of an x86-64 CPU.
Time: TODO
Result: TODO
"""

import dataclasses

from train.presets import digits

CONFIG = dataclasses.replace(
    digits.CONFIG, preset="digits-aff_capsnet", model="aff_capsnet", routing="uniform"
)
