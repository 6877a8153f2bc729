"""How commands declare, parse and share their options; `train/cli` and `parity/cli` use it.

`command` makes a command line of typed dataclasses, `recipe` adds the settings of a run, `shared`
has the options of several commands, `values` reads a word.
"""
