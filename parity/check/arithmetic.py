"""Arithmetic as plain as both frameworks have it: no TF32, no fused kernels, float64 if asked.

On a CPU, PyTorch takes its convolutions from other libraries where it can. oneDNN sums in float32
one after the other: on the paper's second convolution, 20,736 terms, its error against float64 is
twice that of PyTorch's own convolution (and of capsjax's), and up to 2.3e-6 after squash. NNPACK,
from 16 images on, transforms 3x3 kernels (Winograd), which loses a digit. Both are off here.
"""

import contextlib
from collections.abc import Iterator

import jax
import torch


@contextlib.contextmanager
def exact(*, x64: bool) -> Iterator[None]:
    """Full precision in JAX, with float64 or without, and in PyTorch while the body runs."""
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, mkldnn.enabled
    try:
        torch.set_float32_matmul_precision("highest")  # no TF32 in the products of a GPU
        cudnn.allow_tf32 = False
        mkldnn.enabled = False  # type: ignore[assignment]
        with (
            torch.backends.nnpack.flags(enabled=False),
            jax.default_matmul_precision("highest"),
            jax.enable_x64(x64),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, mkldnn.enabled = before[1:]
