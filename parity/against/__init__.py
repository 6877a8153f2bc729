"""Somebody's own PyTorch module beside capsjax: calling it, comparing it, and why it differs."""
