"""Public PyTorch capsule networks, each computed as its authors compute it, one a file."""
