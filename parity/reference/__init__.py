"""Plain PyTorch references: the paper's network, and one for each public implementation.

Nothing here imports more than torch: what proves does not use what is proven. `models` has the
published networks, `routing` the routings, `dialects` what public repositories make of them.
"""

from parity.reference.dialects.adambielski import AdamBielski
from parity.reference.dialects.cedrickchee import CedrickChee
from parity.reference.dialects.efficient_capsnet_port import EfficientCapsNet
from parity.reference.dialects.gram_ai import GramAi
from parity.reference.dialects.jindongwang import JindongWang
from parity.reference.dialects.laubonghaudoi import LaubongHaudoi
from parity.reference.dialects.xifengguo import XifengGuo
from parity.reference.dialects.xifengguo_keras import XifengGuoKeras
from parity.reference.dialects.yl_1993 import Yl1993
from parity.reference.models import ModelReference
from parity.reference.models.capsnet import CapsNet

REFERENCES: dict[str, type[CapsNet]] = {
    "reference": CapsNet,
    "gram-ai": GramAi,
    "xifengguo": XifengGuo,
    "xifengguo-keras": XifengGuoKeras,
    "jindongwang": JindongWang,  # higgsfield computes the same under the same names
    "cedrickchee": CedrickChee,
    "laubonghaudoi": LaubongHaudoi,
    "adambielski": AdamBielski,
}
"""The paper's network and the dialects, by the name of their weight layout."""

OTHERS: dict[str, type[ModelReference]] = {"efficient-capsnet": EfficientCapsNet, "yl-1993": Yl1993}
"""Public implementations of other networks than CapsNet, by the name of their weight layout."""

__all__ = ["OTHERS", "REFERENCES", "CapsNet", "ModelReference"]
