"""Networks in PyTorch written for speed, one a file: what their references compute, not how.

Each takes the arguments and the state dict of its reference and returns of its results `lengths`,
`logits` and `reconstruction`, as far as that has them. Votes are batched products of matrices,
windows are cut once, statistics and squashes are PyTorch's own in the dtype at hand, and nothing is
kept that the backward pass does not need. A network whose reference has nothing that could be
faster is not here: that is as fast as PyTorch is.
"""

from parity.bench.fast.aff_capsnet import FastAffCapsNet
from parity.bench.fast.attention_capsnet import FastAttentionCapsNet
from parity.bench.fast.capsnet import FastCapsNet
from parity.bench.fast.deepcaps import FastDeepCaps
from parity.bench.fast.efficient_capsnet import FastEfficientCapsNet
from parity.bench.fast.matrix_capsnet import FastMatrixCapsNet
from parity.bench.fast.sr_capsnet import FastSRCapsNet
from parity.bench.fast.vb_capsnet import FastVBCapsNet
from parity.reference._parts import Reference

FAST: dict[str, type[Reference]] = {
    "aff_capsnet": FastAffCapsNet,
    "attention_capsnet": FastAttentionCapsNet,
    "capsnet": FastCapsNet,
    "deepcaps": FastDeepCaps,
    "efficient_capsnet": FastEfficientCapsNet,
    "matrix_capsnet": FastMatrixCapsNet,
    "sr_capsnet": FastSRCapsNet,
    "vb_capsnet": FastVBCapsNet,
}
"""By the names of `capsjax.list_models()`."""
