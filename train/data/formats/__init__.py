"""Readers of file formats, damaged and hostile files included; no data set is known here."""
