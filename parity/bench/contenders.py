"""The programs that are timed: each makes a training step and a forward pass of the same network.

A contender runs in a process of its own, so that its memory is its own, and imports its framework
there.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from parity.bench.work import Work

LEARNING_RATE = 0.001

PREPARING = ("tracing_seconds", "compiling_seconds")


class Contender(NamedTuple):
    """A program that is ready to run.

    `train` takes a number of training steps and waits for the last; it returns the loss, of one
    step or of its last ones. `forward` runs the network on the batch a number of times and waits.
    `peak_bytes` is the most memory of an accelerator that was in use, or None for a CPU, where it
    is the process that counts. The note says what is to be known of it. `prepared` has the seconds
    of what was done for the first step already, by its names in `PREPARING`.
    """

    device: str
    train: Callable[[int], float]
    forward: Callable[[int], None]
    peak_bytes: Callable[[], int | None]
    note: str = ""
    prepared: Mapping[str, float] = {}


Maker = Callable[[Work], Contender]
"""Makes a contender, to be called in a process of its own."""


def capsjax(work: Work) -> Contender:
    """The network and the steps of `python -m train fit`, data on the device."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from train.bench.training import steps_of
    from train.learn.metrics import merge
    from train.learn.trainer import assemble

    program = assemble(*training(work), devices=1)
    begun = time.perf_counter()
    lowered = program.lower()
    traced = time.perf_counter()
    lowered.compile()
    prepared = (traced - begun, time.perf_counter() - traced)
    batch = {"indices": np.arange(work.batch_size, dtype=np.int32)}
    take = steps_of(program, itertools.repeat(batch))
    images = jnp.asarray(work.images, jnp.float32) / 255

    # Assembled once: it takes as long as a few forward passes.
    graphdef = nnx.graphdef(program.model())

    @jax.jit
    def apply(weights: Any, model_state: Any, images: Any) -> Any:
        output = nnx.merge(graphdef, weights, model_state)(images)
        return output.lengths, output.reconstruction

    def forward(times: int) -> None:
        state = program.state
        for _ in range(times):
            result = apply(state.weights, state.model_state, images)
        jax.block_until_ready(result)

    device = jax.local_devices()[0]
    return Contender(
        device.device_kind,
        lambda steps: merge([take(steps)])["loss"],
        forward,
        lambda: (device.memory_stats() or {}).get("peak_bytes_in_use"),
        prepared=dict(zip(PREPARING, prepared, strict=True)),
    )


def training(work: Work) -> tuple[Any, Any]:
    """The work as a configuration of `python -m train fit`, and its data set of one batch."""
    import capsjax
    from train.config.fit_config import FitConfig
    from train.data import Dataset, Split

    published = capsjax.models.published_options(work.model)
    options, values = dict(work.options), {}
    if "routing" in published:
        values["routing"] = published["routing"]
    if work.iterations is not None:
        values["routing_iterations"] = work.iterations
    if "grid_routing" in published:
        options["grid_routing"] = capsjax.create_routing(
            published["grid_routing"], iterations=work.iterations
        )
    config = FitConfig.of(
        preset="bench",
        validation=0,  # the data are one batch
        model=work.model,
        model_options=options,
        loss=work.loss,
        dtype=work.dtype,
        batch_size=work.batch_size,
        learning_rate=LEARNING_RATE,
        decay_rate=1.0,  # the rate stays
        **values,
    )
    split = Split(work.images, work.labels)
    names = tuple(map(str, range(work.num_classes)))
    return config, Dataset("bench", split, split, names)


def pytorch(work: Work, *, fast: bool = True, compiled: bool = False) -> Contender:
    """The network of `FAST`, or else the reference, which keeps all it computes."""
    import torch

    from parity.bench.fast import FAST

    plain = plain_network(work.model)
    model = (FAST.get(work.model, plain) if fast else plain)(**work.arguments)
    model.draw(torch.Generator().manual_seed(0), biases=False)
    return in_pytorch(work, model, fast=fast, compiled=compiled)


def plain_network(model: str) -> Any:
    """The class of a network's reference."""
    from parity.reference import CapsNet
    from parity.reference.models import MODELS

    return CapsNet if model == "capsnet" else MODELS[model]


def own_module(work: Work, *, spec: str, output: str | None) -> Contender:
    """The user's module `FILE.py:NAME`; the output is of `parity.bench.own_module.OwnModule`."""
    from parity.bench.own_module import OwnModule

    module = OwnModule(spec, work, plain_network(work.model), output)
    return in_pytorch(work, module)._replace(note=module.how)


def in_pytorch(work: Work, model: Any, *, fast: bool = False, compiled: bool = False) -> Contender:
    """A module with the `forward` and the `losses` of a reference.

    The fast way has the channels of images and kernels last, and an optimiser in one kernel.
    """
    import os

    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True  # XLA tries several algorithms, too
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    memory_format = torch.channels_last if fast else torch.contiguous_format
    model = model.to(device=device, memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=fast)
    pixels = torch.from_numpy(work.images).to(device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(work.labels).long().to(device)

    def normalised() -> Any:
        return (pixels.float() / 255).contiguous(memory_format=memory_format)

    def apply(images: Any, labels: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=work.dtype == "bfloat16"):
            stages = model(images, labels)
        return {name: stages[name] for name in RESULTS if name in stages}

    def loss_and_gradients() -> Any:
        images = normalised()
        outputs = {name: output.float() for name, output in apply(images, labels).items()}
        loss = model.losses(outputs, images, labels)["total"]
        loss.backward()
        return loss.detach()

    step = torch.compile(loss_and_gradients) if compiled else loss_and_gradients

    seen = normalised()  # once, as capsjax has them; in training both do it in each step

    @torch.no_grad()
    def infer() -> Any:
        return apply(seen, None)

    infer_once = torch.compile(infer) if compiled else infer

    def train(steps: int) -> float:
        model.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = step()
            optimizer.step()
        return float(loss)

    def forward(times: int) -> None:
        model.eval()
        for _ in range(times):
            infer_once()
        if on_gpu:
            torch.cuda.synchronize()

    return Contender(
        torch.cuda.get_device_name() if on_gpu else "cpu",
        train,
        forward,
        lambda: torch.cuda.max_memory_allocated() if on_gpu else None,
    )


CONTENDERS: dict[str, Maker] = {
    "capsjax": capsjax,
    "torch-reference": partial(pytorch, fast=False),
    "torch-fast": pytorch,
    "torch-compile": partial(pytorch, compiled=True),
}
"""By name, what makes each contender."""

RESULTS = ("lengths", "logits", "reconstruction")
"""What is kept of what a network in PyTorch returns, as far as it has that."""


def chosen_contenders(
    names: Sequence[str], against: str | None = None, output: str | None = None
) -> dict[str, Maker]:
    """Those of these names, and the user's module, if there is one, as of `own_module`.

    That comes first, so that what is wrong with it is told soon.
    """
    own = {} if against is None else {against: partial(own_module, spec=against, output=output)}
    return own | {name: CONTENDERS[name] for name in names}
