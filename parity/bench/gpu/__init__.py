"""All that needs an accelerator, in one command and one report: `python -m parity gpu-report`.

`plan` says what is measured, `device`, `fitting` and `parity_check` measure it, `report` gives each
part its time, and `table` is the report for people.
"""
