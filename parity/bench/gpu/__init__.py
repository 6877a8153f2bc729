"""All that needs an accelerator, in one command and one report: `python -m parity gpu-report`.

`plan` says what is measured, `device` and `programs` measure it, `report` gives each part its time,
and `table` is the report for people.
"""
