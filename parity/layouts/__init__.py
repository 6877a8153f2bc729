"""Weight layouts of public PyTorch networks, one a TOML file in `published`.

`table` reads and finds a layout, `match` lays it over a network, whose arrays it then turns, and
`importing` and `exporting` do so with files. `model_table` says what a model's parameters are.
"""
