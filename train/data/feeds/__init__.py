"""Feeds of training examples to the devices, and the order of the examples.

`resident` keeps a set on the devices, `streaming` brings batches from the host.
"""
