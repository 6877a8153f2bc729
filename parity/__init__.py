"""The proof that capsjax computes what PyTorch capsule networks compute."""
