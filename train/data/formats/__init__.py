"""Readers of file formats, for damaged and hostile files as well; no data set is known here."""
