"""What decides a run's numbers: data, model, objective, optimiser and schedule.

It is saved with a run, and every check on it that needs no data is made here.
"""
