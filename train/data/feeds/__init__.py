"""How training examples reach the devices: their order, and the feeds that bring them.

`resident` keeps a set on the devices, `streaming` brings batches from the host.
"""
