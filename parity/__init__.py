"""The proof that capsjax computes what PyTorch capsule networks compute: `python -m parity`.

`reference` holds the PyTorch networks and imports torch alone; `layouts` the weights of public
networks; `check` compares, stage by stage; `against` compares somebody's own module; `bench` times
both; `cli` has the commands.
"""
