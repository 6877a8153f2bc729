"""The command line of `python -m train`: a command a file, with its options and its words.

Nothing imports this room but `train/__main__.py`, and `parity/cli`, which is made in the same way.
"""
