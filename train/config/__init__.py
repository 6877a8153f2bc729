"""What decides a run's numbers, and every check on it that needs no data.

`FitConfig` has its settings in groups, all of them in `groups.py`; `setting.py` says what a setting
is, `config_file.py` how a configuration stands in a file.
"""
