"""The proof that capsjax computes what PyTorch capsule networks compute: `python -m parity`.

`reference` holds the PyTorch networks and imports torch alone; `layouts` the weights of public
networks; `check` compares, stage by stage; `user_module` compares a module that a user wrote;
`bench` times both; `cli` has the commands.
"""
