"""What training costs, in time and memory, and how that grows.

`worker` (a process of its own), `timing` (the timer, the fit of a line), `costs` (what XLA says of
a program) and `report` (text, JSON, figures) are the core, which `parity/bench` uses too.
`training` times the step of `fit`, `parts` what it is made of, `machine` the best that the devices
can do, `data` the feeds; `sweep` says what is measured, and `runner` measures it.
"""
