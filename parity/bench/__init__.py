"""capsjax and PyTorch at the same work, side by side: `python -m parity bench`.

`work` is what they do, `contenders` are the programs, of which `fast` are PyTorch written for
speed and `own_module` is the user's; `side_by_side` times them in turns, `benchmark` reports by
`table`; `gpu` measures all that needs an accelerator. The core is `train/bench`.
"""
