"""`python -m parity bench`: capsjax and PyTorch at the same work, side by side."""
