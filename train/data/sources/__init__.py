"""Data sets that come from files: a set, or a family of one format, a file.

A published set is a `Source` of `train/data/official.py`; `train/data/catalog.py` lists them all.
"""
