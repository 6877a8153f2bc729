"""Learning: a network, what it minimises, and a step.

`update.py` computes one step of training, `step.py` maps it over the devices, `state.py` is what it
changes and a checkpoint holds, `scoring.py` measures a split; `trainer.py` holds it all for a
run.
"""
