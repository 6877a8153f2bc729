"""What decides a run's numbers, and every check on it that needs no data.

`FitConfig` has its settings in groups, all of them in `settings.py`; `checked.py` says how a
setting is declared and checked, `config_file.py` how a configuration stands in a file.
"""
