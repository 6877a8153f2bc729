"""A step of training and of evaluation: network, objective, optimiser, update, devices, metrics."""
