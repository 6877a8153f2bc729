"""What training costs, in time and memory, and how that grows.

`worker` (a process of its own), `timing` (the timer, the fit of a line), `costs` (what XLA says of
a program) and `report` (text, JSON, figures) are the core, which `parity/bench` uses too.
`training` times the step of `fit`, `step_parts` what it is made of, `forward` what it takes to
predict; `ceilings` is the best that the devices can do; `sweep` says what is measured, and
`benchmark` measures it.
"""
