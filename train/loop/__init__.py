"""The training loop, and what it needs while it runs.

`loop.py` reads from top to bottom: it sends steps to the devices (`learn/trainer.py`) and puts off
what is done with their results (`deferred.py`): the log (`run/log.py`), the check for numbers that
are not finite (`guard.py`), the checkpoints (`run/checkpoint_files.py`).
"""
