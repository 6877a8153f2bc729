"""Training from a configuration to a run folder: the loop, and what it needs while it runs."""
