"""The folder of a run: what is in it, who may write there, its checkpoints and its log."""
