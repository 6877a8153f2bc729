"""capsjax and PyTorch at the same work, side by side: `python -m parity bench`.

`contenders` are the programs, `fast` PyTorch written for speed, `side_by_side` times them in turns,
`benchmark` reports; `gpu` measures all that needs an accelerator. The core is `train/bench`.
"""
