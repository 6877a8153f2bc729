"""Data sets whose examples are made on the device as training runs."""
