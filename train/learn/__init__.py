"""Learning: a network, what it minimises, and a step.

`step.py` computes a step of training, `pmap.py` maps it over the devices, `training_state.py` is
what it changes and a checkpoint holds, `scoring.py` measures a split; `trainer.py` holds it all for
a run.
"""
