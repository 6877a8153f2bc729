"""The capsule network without routing of Gu and Tresp 2020."""

import functools

from capsjax.models.capsnet import CapsNet

AffCapsNet = functools.partial(CapsNet, shared_transform=True, routing="uniform")
"""`CapsNet` whose primary capsules all vote with the same matrices, and all count alike.

Gu and Tresp 2020, "Improving the robustness of capsule networks to image affine transformations",
arXiv:1911.07968. Without routing, and with one transformation matrix for each class instead of one
for each pair of capsules, a capsule network trained on MNIST recognises more of affNIST. It has
6,742,288 parameters on 28x28x1 images and 10 classes, 5,330,944 of them outside the decoder.
"""
