"""Public CapsNets, each computed as its authors compute it, one a file.

What a file does not say is the paper's, as `CapsNet` has it: margins of 0.9 and 0.1, absent classes
weighted with 0.5, 0.0005 times the summed squared error, logits of zero at first, for each example,
a softmax over the output capsules, gradients through all passes of the routing, the capsule of the
label decoded in training and the longest one in test. At exactly zero, where the public code of a
squash without epsilon divides zero by zero, value and gradient are zero here. Not known of any, and
taken as the plain ones: how lengths are computed.

Sizes: K components of T types of primary capsules at P positions, I in all; J class capsules of D.
"""
