"""What decides a run's numbers, and every check on it that needs no data.

`FitConfig` has a group of settings a file: data, model, objective, optimizer, schedule.
`setting.py` says what a setting is, `config_file.py` how a configuration stands in a file.
"""
