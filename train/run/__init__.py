"""The folder of a run: what is in it, its checkpoints, its lock and its log."""
