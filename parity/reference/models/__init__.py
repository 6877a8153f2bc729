"""Published networks in plain PyTorch, one a file, each the reference of a model of capsjax.

Modules and parameters have the names of capsjax's, as `parity.check.pairs.same_names` wants them. A
reference is called with images NCHW and labels, and returns everything by name, as
`ModelReference` tells.
"""

from parity.reference.models._base import ModelReference
from parity.reference.models.attention_capsnet import AttentionCapsNet
from parity.reference.models.cnn import CNN
from parity.reference.models.deepcaps import DeepCaps
from parity.reference.models.efficient_capsnet import EfficientCapsNet
from parity.reference.models.matrix_capsnet import MatrixCapsNet
from parity.reference.models.sr_capsnet import SRCapsNet
from parity.reference.models.stacked_capsnet import AffCapsNet, StackedCapsNet
from parity.reference.models.vb_capsnet import VBCapsNet

MODELS: dict[str, type[ModelReference]] = {
    "aff_capsnet": AffCapsNet,
    "attention_capsnet": AttentionCapsNet,
    "capsnet": StackedCapsNet,
    "cnn": CNN,
    "deepcaps": DeepCaps,
    "efficient_capsnet": EfficientCapsNet,
    "matrix_capsnet": MatrixCapsNet,
    "sr_capsnet": SRCapsNet,
    "vb_capsnet": VBCapsNet,
}
"""By the names of `capsjax.list_models()`; that of `capsnet` has further layers of capsules."""
