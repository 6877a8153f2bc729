"""Feeds of training examples to the devices, and the order of the examples.

`feed` has the choice and the one that keeps a set on the devices, `streaming` brings batches.
"""
