"""Data sets that come from files: a set, or a family of one format, a file.

`train/data/catalog.py` has their names.
"""
