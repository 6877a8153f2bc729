"""The commands of `python -m train`, one a file: its options, its help, and what it prints."""
